package queue

func publisher(dir string) {}
