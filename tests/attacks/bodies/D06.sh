absent dummy; undo 'ip link del evil0; rmmod dummy'; powerless ip link add evil0 type dummy && ip link show evil0
