// Command stile looks at how services call each other, and shows what Stile does
// for them. See stile --help.
package main

import "os"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }
