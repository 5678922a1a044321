package profile

import "strconv"

// LabelNames are the labels that [Labels.Value] knows, in the words of the pprof profiles.
var LabelNames = []string{"pid", "tid", "comm", "thread", "exe", "cgroup", "container_id"}

// Value is a label by its name; "" where the sample does not have it.
func (l *Labels) Value(name string) string {
	if l == nil {
		return ""
	}
	switch name {
	case "pid":
		return number(l.PID)
	case "tid":
		return number(l.TID)
	case "comm":
		return l.Comm
	case "thread":
		return l.Thread
	case "exe":
		return l.Exe
	case "cgroup":
		return l.Cgroup
	case "container_id":
		return l.ContainerID
	}
	return ""
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}
