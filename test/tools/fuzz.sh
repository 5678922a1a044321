#!/bin/sh
# usage: fuzz.sh TIME PACKAGE...
# Runs every fuzz target of the packages for TIME each, two at a time; writes test events (go test -json).
set -eu
time=$1
shift

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The names of a package's targets, then a line "ok PACKAGE TIME".
go test -list '^Fuzz' "$@" >"$work/list" || {
	cat "$work/list"
	exit 1
}
awk '/^Fuzz/ { names[++n] = $1 } $1 == "ok" { for (i = 1; i <= n; i++) print $2, names[i]; n = 0 }' "$work/list" >"$work/targets"

# Runs a target on one CPU. What the fuzzer finds of interest it makes smaller, for a minute unless told: nearly all of
# its time would go there.
fuzz() {
	# Go's fuzzer now and then takes the end of its own time for a failure: no input
	# is at fault then, and it runs again.
	for try in 1 2 3; do
		result=0
		go test -json -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 10x -parallel 1 "$1" >"$3" || result=1
		if [ "$result" = 0 ] || [ "$try" = 3 ] || ! grep -q 'context deadline exceeded' "$3" || grep -q 'Failing input' "$3"; then
			break
		fi
	done
	cat "$3"
	return "$result"
}

# Runs every second target, from the first or the second on.
lane() {
	status=0
	awk -v lane="$1" 'NR % 2 == lane' "$work/targets" >"$work/targets.$1"
	while read -r package target; do
		fuzz "$package" "$target" "$work/output.$1" </dev/null || status=1
	done <"$work/targets.$1"
	return "$status"
}

status=0
lane 0 >"$work/events.0" &
lane 1 || status=1
wait "$!" || status=1
cat "$work/events.0"
exit "$status"
