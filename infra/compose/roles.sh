#!/usr/bin/env bash
# Run once by the Postgres image, on an empty data directory: the role of the API and the hosts, who cannot change the schema.
set -euo pipefail
psql -v ON_ERROR_STOP=1 -v password="$POSTGRES_APP_PASSWORD" --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
create role zaguan_app login password :'password';
SQL
