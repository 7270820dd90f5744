setting /proc/sys/vm/mmap_min_addr 0
