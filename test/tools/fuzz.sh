#!/bin/sh
# usage: fuzz.sh TIME PACKAGE...
# Runs every fuzz target of the packages, one after the other, for TIME each; writes test events (go test -json).
set -eu
time=$1
shift

targets=$(mktemp)
output=$(mktemp)
trap 'rm -f "$targets" "$output"' EXIT
# The names of a package's targets, then a line "ok PACKAGE TIME".
go test -list '^Fuzz' "$@" >"$targets" || {
	cat "$targets"
	exit 1
}
status=0
while read -r package target; do
	# Go's fuzzer now and then takes the end of its own time for a failure: no input
	# is at fault then, and it runs again.
	for try in 1 2 3; do
		result=0
		go test -json -run '^$' -fuzz "^$target\$" -fuzztime "$time" -parallel 2 "$package" >"$output" || result=1
		if [ "$result" = 0 ] || [ "$try" = 3 ] || ! grep -q 'context deadline exceeded' "$output" || grep -q 'Failing input' "$output"; then
			break
		fi
	done
	cat "$output"
	[ "$result" = 0 ] || status=1
done <<END
$(awk '/^Fuzz/ { names[++n] = $1 } $1 == "ok" { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }' "$targets")
END
exit $status
