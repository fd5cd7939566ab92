-- What a platform's own change history says about an edit of somebody else: the program it was made with, and when.
ALTER TABLE external_edits ADD COLUMN through TEXT NOT NULL DEFAULT '';
ALTER TABLE external_edits ADD COLUMN made_at INTEGER;
