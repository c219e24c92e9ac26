-- A LID is a person, a number is lent. When the number of a person who was erased comes with another LID it has gone to somebody else, who
-- must not find the person's chat and its grants: so the chat keeps its LID as `erased_name` makes it, to be compared and no more.
alter table chat add column erased_lid text;
