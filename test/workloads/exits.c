// SPDX-License-Identifier: Apache-2.0
//go:build ignore

// A program that ends at once. Built -static, it is also the smallest program to exec.
int main(void)
{
	return 0;
}
