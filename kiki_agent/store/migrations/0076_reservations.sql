-- A reservation made for somebody outside the agent ends by itself when nobody came back for it.
ALTER TABLE reservations ADD COLUMN expires_at INTEGER;
