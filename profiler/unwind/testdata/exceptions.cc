// SPDX-License-Identifier: Apache-2.0

// Exceptions that pass through frames with and without something to destroy. It is stepped through instruction by instruction.
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

#define KEEP __attribute__((noinline))

static volatile int sink;

struct Guard {
	std::string name;
	KEEP explicit Guard(const char *n) : name(n) { sink = sink + (int)name.size(); }
	KEEP ~Guard() { sink = sink - 1; }
};

KEEP int fail(int n)
{
	if (n == 0)
		throw std::runtime_error("deep");
	std::vector<int> numbers(n, n);
	return fail(n - 1) + numbers[0];
}

KEEP int guarded(int n)
{
	Guard guard("guard");
	return fail(n) + sink;
}

KEEP int rethrow(int n)
{
	try {
		return guarded(n);
	} catch (const std::runtime_error &) {
		sink = sink + 1;
		throw;
	}
}

struct Shape {
	virtual ~Shape() = default;
	virtual int area() const = 0;
};

struct Square : Shape {
	KEEP int area() const override
	{
		try {
			return rethrow(3);
		} catch (const std::exception &e) {
			return (int)std::string(e.what()).size();
		}
	}
};

int main()
{
	Square square;
	const Shape &shape = square;
	std::printf("%d\n", shape.area());
	return 0;
}
