package bpf

// Answer is what a probe found out; the zero value is Inconclusive.
type Answer int

// Answers.
const (
	Inconclusive Answer = iota
	No
	Yes
)

// String is the answer in a word.
func (a Answer) String() string {
	switch a {
	case Yes:
		return "yes"
	case No:
		return "no"
	}
	return "inconclusive"
}
