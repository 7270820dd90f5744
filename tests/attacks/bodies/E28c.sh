ran "$(perl -e '$n = "x"; $m = syscall(319, $n, 0); open F, ">&=", $m; $| = 1; syswrite F, "print qq(evil program ran\n)"; do "/proc/self/fd/$m"')"
