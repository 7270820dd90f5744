exec 3</etc/hosts; echo evil >/proc/self/fd/3
