// Lets expand.go declare a function without a body.
