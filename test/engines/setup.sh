#!/bin/sh
# Installs the ClickHouse that the tests here run, into build/clickhouse: chdb, which npm has (540 MB). Silent and quick where it is there.
# Not without PILOTLIGHT_LONG: its tests run in make test-long.
set -eu
[ -n "${PILOTLIGHT_LONG:-}" ] || exit 0
cd "$(dirname "$0")/clickhouse"
to=../../../build/clickhouse
cmp -s package-lock.json "$to/installed" && exit 0
mkdir -p "$to"
cp package.json package-lock.json "$to/"
# Not npm ci: that wants the libraries of other systems in the lock file too.
(cd "$to" && npm install --ignore-scripts --no-audit --no-fund --silent) || {
	echo "The tests need the npm package chdb, which cannot be installed: see npm's message above" >&2
	exit 1
}
cp package-lock.json "$to/installed"
