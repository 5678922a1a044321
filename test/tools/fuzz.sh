#!/bin/sh
# usage: fuzz.sh TIME PACKAGE...
# Runs every fuzz target of the packages, one after the other, for TIME each; writes test events (go test -json).
set -eu
time=$1
shift

targets=$(mktemp)
trap 'rm -f "$targets"' EXIT
# The names of a package's targets, then a line "ok PACKAGE TIME".
go test -list '^Fuzz' "$@" >"$targets" || {
	cat "$targets"
	exit 1
}
status=0
while read -r package target; do
	go test -json -run '^$' -fuzz "^$target\$" -fuzztime "$time" -parallel 2 "$package" || status=1
done <<END
$(awk '/^Fuzz/ { names[++n] = $1 } $1 == "ok" { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }' "$targets")
END
exit $status
