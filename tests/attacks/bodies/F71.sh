echo 1 >/proc/sys/fs/leases-enable
perl -e 'open(my $file, "<", "/usr/lib/systemd/systemd") or die; defined(fcntl($file, 1024, 1)) or die "$!\n"'
