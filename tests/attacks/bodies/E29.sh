printf 'print "evil program ran\\n"; 1\n' >Evil.pm; ran "$(perl Evil.pm)$(perl -e 'do "./Evil.pm"')$(perl -I. -MEvil -e 1)$(PERL5LIB=$PWD perl -MEvil -e 1)"
