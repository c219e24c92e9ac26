//! Nothing: the promises are kept in the test binary beside this.
