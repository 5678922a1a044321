#!/bin/sh
# Installs what the tests of the page need beside what test/setup.sh brings: Debian's Chromium, Node.js 18.15 or newer, and the
# packages of the lock file here. Silent and quick where it is there.
set -eu
cd "$(dirname "$0")"

missing=
command -v chromium >/dev/null || missing="$missing chromium fonts-dejavu-core"
command -v node >/dev/null || missing="$missing nodejs"
command -v npm >/dev/null || missing="$missing npm"
if [ -n "$missing" ]; then
	if [ "$(id -u)" -ne 0 ]; then
		echo "The tests of the page need packages that are not installed; as root: apt-get install$missing" >&2
		exit 1
	fi
	log=$(mktemp)
	trap 'rm -f "$log"' EXIT
	export DEBIAN_FRONTEND=noninteractive
	# Lists that are there are tried first; they may be missing (an image) or old (a file that is no longer on the mirror).
	# shellcheck disable=SC2086 # words, on purpose
	apt-get install -y -q --no-install-recommends $missing >"$log" 2>&1 ||
		{ apt-get update -q >"$log" 2>&1 && apt-get install -y -q --no-install-recommends $missing >"$log" 2>&1; } || {
		echo "The tests of the page need$missing, which cannot be installed:" >&2
		grep -E '^(E|Err):?' "$log" >&2 || tail -n 5 "$log" >&2
		exit 1
	}
fi

cmp -s package-lock.json node_modules/installed && exit 0
npm ci --ignore-scripts --no-audit --no-fund --silent || {
	echo "The tests of the page need npm packages that cannot be installed: see npm's message above" >&2
	exit 1
}
cp package-lock.json node_modules/installed
