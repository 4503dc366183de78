#!/usr/bin/env bash
# Draws the secrets of compose.yaml and compose.ray.yaml into deploy/secrets/, which git ignores; keeps those that are there.
set -euo pipefail
umask 077
cd "$(dirname "$0")"
mkdir -p secrets
cd secrets

draw() { [[ -s $1 ]] || printf '%s' "$(head -c 24 /dev/urandom | base64 | tr -d '+/=')" >"$1"; }

draw postgres_password
draw mongo_password
draw s3_access_key
draw s3_secret_key
draw ray_token
[[ -s prefect_auth ]] || printf 'vouch:%s' "$(head -c 24 /dev/urandom | base64 | tr -d '+/=')" >prefect_auth
rm -f aws_credentials s3.json
cat >aws_credentials <<X
[default]
aws_access_key_id = $(<s3_access_key)
aws_secret_access_key = $(<s3_secret_key)
X
cat >s3.json <<X
{"identities": [{"name": "vouch", "actions": ["Admin", "Read", "List", "Tagging", "Write"],
  "credentials": [{"accessKey": "$(<s3_access_key)", "secretKey": "$(<s3_secret_key)"}]}]}
X
# Containers run as other users than the one who draws; the folder itself keeps everybody else out.
chmod 0444 ./*
echo "secrets are in $PWD"
