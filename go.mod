module github.com/stile-ipc/stile

go 1.26
