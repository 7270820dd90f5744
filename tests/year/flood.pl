# perl flood.pl SECONDS: opens the disk for writing as fast as it goes, and says how often it was refused. The bare call, so that perl costs little.
use strict;
my ($seconds) = @ARGV;
my ($path, $end, $refused) = ("/dev/vda\0", time + $seconds, 0);
my $open = 2;
while (time < $end) {
    for (1 .. 500) {
        my $opened = syscall($open, $path, 1, 0);
        die "the disk was opened for writing\n" if $opened >= 0;
        $refused++;
    }
}
print "refused $refused\n";
