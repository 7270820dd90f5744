mknod /etc/x c 1 3
