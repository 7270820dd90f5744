# perl race.pl FOLDER SECONDS: paths are changed between a program of the image's and one of the attacker's as fast as it goes, while they are executed again and
# again. What is checked is what is executed, and no path: the attacker's program, which leaves a mark, must never run.
#
# It runs in a mount namespace of its own, in which FOLDER's file system is executable and mounts are free: nobody but the guard refuses.
use strict;
my ($folder, $seconds) = @ARGV;
my ($mount, $umount, $renameat2, $exchange, $bind, $detach) = (165, 166, 316, 2, 4096, 2);
my $here = -100;
my ($theirs, $mark, $end) = ("/usr/bin/true", "$folder/mark", time + $seconds);
my ($swapped, $linked, $covered) = map { "$folder/$_" } qw(swapped linked covered);
sub attackers { my ($path) = @_; system("cp /usr/bin/touch $path && chmod 755 $path") == 0 or die "$path: no program\n"; "$path\0" }
my ($other, $second) = (attackers("$folder/other"), attackers("$folder/second"));
attackers($covered);
for my $path ($swapped, $linked) { symlink $theirs, $path or die "$path: $!\n"; }

my ($s, $c, $t) = ("$swapped\0", "$covered\0", "$theirs\0");
my ($type, $data) = ("none\0", "\0");
my @racers = (
    sub { syscall($renameat2, $here, $s, $here, $other, $exchange) },
    sub { unlink $linked; symlink "$folder/second", $linked; unlink $linked; symlink $theirs, $linked },
    sub { syscall($mount, $t, $c, $type, $bind, $data); syscall($umount, $c, $detach) },
);
my @racing;
for my $racer (@racers) {
    my $pid = fork // die "fork: $!\n";
    if (!$pid) { $racer->() for 1 .. 1e12; exit }
    push @racing, $pid;
}
my %ended;
# Until each path was seen as both, however slow the machine is: the racers go on ten times as long.
my $last = $end + 9 * $seconds;
sub both { !grep { ($ended{$_}{0} // 0) < 3 || ($ended{$_}{77} // 0) < 3 } $swapped, $linked, $covered }
while (time < $end || (!both() && time < $last)) {
    for my $path ($swapped, $linked, $covered) {
        my $pid = fork // die "fork: $!\n";
        if (!$pid) { exec { $path } "touch", $mark; exit($! == 1 ? 77 : 78) }
        waitpid $pid, 0;
        $ended{$path}{$? >> 8}++;
        if (-e $mark) { kill 9, @racing; die "the attacker's program ran, as $path\n" }
    }
}
kill 9, @racing;
for my $path ($swapped, $linked, $covered) { my $n = $ended{$path}; printf "%s ran %d refused %d missing %d\n", $path =~ s{.*/}{}r, $n->{0} // 0, $n->{77} // 0, $n->{78} // 0 }
