need ionice; everyone; undo 'ionice -c 0 -p 1'; ionice -c 3 -p 1
