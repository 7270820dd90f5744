need /var/.adamant/reserve/0; echo 3 >/proc/sys/vm/drop_caches
perl -e 'my ($path, $handle, $mount) = ("/var/.adamant/reserve/0", pack("Ii", 128, 0) . "\0" x 128, "\0" x 8);
  syscall(303, -100, $path, $handle, $mount, 0) == 0 or die "name_to_handle_at: $!\n"; open(my $drop, ">", "/proc/sys/vm/drop_caches"); print $drop "3\n"; close $drop;
  opendir(my $var, "/var"); my $file = syscall(304, fileno($var), $handle, 1); die "open_by_handle_at: $!\n" if $file < 0'
