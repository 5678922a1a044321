// Package shapes holds one of each thing that a Go compiler makes of functions.
package shapes

import (
	"fmt"
	"sort"
)

var sink int

// Inlined in inlined in inlined, over lines of their own.
func leaf(x int) int {
	if x > 3 {
		sink += x
	}
	return x * 3
}

func middle(x int) int {
	y := leaf(x) +
		leaf(x+1)
	return y ^ 5
}

func outer(x int) int {
	return middle(x) -
		middle(leaf(x))
}

type point struct{ x, y int }

func (p point) sum() int    { return leaf(p.x) + p.y }
func (p *point) move(d int) { p.x += outer(d); p.y -= p.sum() }
func (p point) Value() int  { return outer(p.x) + p.sum() }

// Methods by embedding and by value: wrappers.
type named struct {
	*point
	name string
}

type deep struct{ named }

type valuer interface{ Value() int }

type number interface{ ~int | ~float64 }

func largest[T number](xs ...T) T {
	var m T
	for _, x := range xs {
		m = larger(m, x)
	}
	return m
}

func larger[T number](a, b T) T {
	if a > b {
		return a
	}
	return b
}

type list[K comparable, V any] struct {
	keys []K
	vals map[K]V
}

func (l *list[K, V]) put(k K, v V) *list[K, V] {
	if l.vals == nil {
		l.vals = make(map[K]V)
	}
	if _, ok := l.vals[k]; !ok {
		l.keys = append(l.keys, k)
	}
	l.vals[k] = v
	return l
}

func (l *list[K, V]) each(f func(K, V)) {
	for _, k := range l.keys {
		f(k, l.vals[k])
	}
}

//go:noinline
func deferred(p *point) (n int) {
	defer p.move(2)
	defer func() {
		if r := recover(); r != nil {
			n = outer(p.x)
		}
	}()
	done := make(chan bool)
	go notify(done, p.x)
	<-done
	var a []int
	return a[outer(p.y)&7]
}

func notify(done chan bool, x int) { sink += x; done <- true }

func closures(n int) (total int) {
	add := func(d int) { total += leaf(d) }
	for i := 0; i < n; i++ {
		add(i)
		func(j int) {
			add(outer(j))
		}(i)
	}
	return total
}

//line generated.y:700
func moved(x int) int {
	return outer(x) + 1
}

//line shapes.go:120

// Run keeps everything alive.
func Run(args []string) {
	p := &point{len(args), 2}
	p.move(1)
	values := []valuer{p, *p, named{p, "n"}, &deep{named{p, "d"}}}
	for _, v := range values {
		sink += v.Value()
	}
	f := values[0].Value
	sink += f() + deferred(p) + closures(len(args)) + moved(len(args)) + Answer(len(args))
	sink += largest(1, 2, len(args)) + int(largest(1.5, float64(len(args))))
	l := new(list[string, point]).put("a", *p).put("b", point{})
	l.each(func(k string, v point) { sink += len(k) + v.sum() })
	new(list[point, int]).put(*p, 1).each(func(k point, v int) { sink += k.Value() })
	sort.Slice(args, func(i, j int) bool { return outer(len(args[i])) < outer(len(args[j])) })
	if sink == 12345678 {
		fmt.Println(sink)
	}
}

// Answer is written in assembly.
func Answer(x int) int
