// Package flame makes of a profile what people look at: the tree of a flame
// graph, the table of the hottest functions, who calls a function and whom it calls, and
// how two profiles differ, with what chance alone would explain.
//
// It works on profile.Profile alone, wherever that came from: the sampling under way, the history, or a file of another tool.
package flame
