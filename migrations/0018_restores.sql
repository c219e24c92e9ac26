-- Since when no host has been able to bring the session's profile back: a full disk, a key that it was not given, a store that lacks the object.
alter table session add column unrestored_at timestamptz;
