// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// C++ names: a template with a type and a number, a virtual method, a method of a class in an anonymous namespace,
// an operator, a lambda. Shares 30/25/20/15/10. The name of a part is the demangled name that the profile must show.
//
//   shapes [SECONDS]
#include "truth.h"

#define KEEP __attribute__((noinline, noclone))

namespace geo {

struct Circle {
	uint64_t radius;
};

template <typename Shape, int Scale> KEEP uint64_t area(const Shape &shape, uint64_t rounds)
{
	volatile uint64_t sum = shape.radius;
	for (uint64_t i = 0; i < rounds * 64; i++)
		sum = sum * Scale + i;
	return sum;
}

struct Solid {
	virtual ~Solid() = default;
	virtual uint64_t volume(uint64_t rounds) const = 0;
};

struct Cube : Solid {
	uint64_t side = 3;
	KEEP uint64_t volume(uint64_t rounds) const override
	{
		volatile uint64_t sum = side;
		for (uint64_t i = 0; i < rounds * 64; i++)
			sum = (sum ^ i) * side;
		return sum;
	}
};

struct Vector {
	uint64_t length;
	KEEP Vector operator+(const Vector &other) const
	{
		volatile uint64_t sum = length;
		for (uint64_t i = 0; i < other.length * 64; i++)
			sum = sum + (i ^ 9);
		return Vector{ sum };
	}
};

namespace {

struct Hidden {
	KEEP static uint64_t spin(uint64_t rounds)
	{
		volatile uint64_t sum = 5;
		for (uint64_t i = 0; i < rounds * 64; i++)
			sum = (sum << 1) - i;
		return sum;
	}
};

} // namespace

} // namespace geo

static geo::Solid *solid;

KEEP static void work(int part, uint64_t rounds)
{
	auto twist = [](uint64_t n) KEEP {
		volatile uint64_t sum = 6;
		for (uint64_t i = 0; i < n * 64; i++)
			sum = (sum >> 1) * 7 + i;
		return static_cast<uint64_t>(sum);
	};
	volatile uint64_t sum = 0;
	switch (part) {
	case 0:
		sum = geo::area<geo::Circle, 7>(geo::Circle{ 2 }, rounds);
		break;
	case 1:
		sum = solid->volume(rounds);
		break;
	case 2:
		sum = (geo::Vector{ 1 } + geo::Vector{ rounds }).length;
		break;
	case 3:
		sum = geo::Hidden::spin(rounds);
		break;
	default:
		sum = twist(rounds);
	}
	(void)sum;
}

int main(int argc, char **argv)
{
	solid = new geo::Cube;
	part parts[] = {
		{ "geo::area<geo::Circle, 7>", 30, 0, 0 },
		{ "geo::Cube::volume", 25, 0, 0 },
		{ "geo::Vector::operator+", 20, 0, 0 },
		{ "geo::(anonymous namespace)::Hidden::spin", 15, 0, 0 },
		{ "lambda", 10, 0, 0 }, // compilers and demanglers differ in how they write it: matched by pattern
	};
	truth_run(parts, 5, argc > 1 ? atof(argv[1]) : 0, work);
	delete solid;
	return 0;
}
