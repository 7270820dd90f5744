/* What a shell can't do by itself: one subcommand for each kind of system call that the attacks
 * need. Static, and no privileges of its own.
 *
 * It is part of the image in the attack suite, so that it may run: it stands for the perl,
 * python or C interpreter that a real attacker finds there. A copy of it on a volume is what
 * must not run.
 *
 * Exit code 0: what was asked for happened. 1: the kernel said no, with its errno on standard
 * error. 77: this kernel or machine has no such thing. */

#ifdef LIBRARY
/* A library that says so when it is loaded; without the C library, so that any program can load
 * it. */
__attribute__((constructor)) static void loaded(void)
{
	static const char text[] = "evil library loaded\n";
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(1L), "D"(1L), "S"(text), "d"(sizeof(text) - 1) : "rcx", "r11", "memory");
}
#else
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <linux/bpf.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <linux/loop.h>
#include <linux/netlink.h>
#include <linux/nvme_ioctl.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <scsi/sg.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int no(const char *what)
{
	int error = errno;
	fprintf(stderr, "poke: %s: %s\n", what, strerror(error));
	return error == ENOSYS || error == ENODEV || error == ENXIO ? 77 : 1;
}

#define TRY(what, expression) do { if ((long)(expression) < 0) return no(what); } while (0)

static unsigned long number(const char *text) { return strtoul(text, 0, 0); }

/* --- files and devices */

/* write PATH OFFSET [TEXT]: without a text, the same 512 bytes as are there. */
static int write_there(int n, char **a)
{
	char block[4096] __attribute__((aligned(4096))) = {0};
	off_t at = number(a[1]);
	size_t length = 4096;
	int in = open(a[0], O_RDONLY);
	if (in >= 0 && n < 3)
		pread(in, block, sizeof(block), at);
	if (n >= 3)
		length = strlen(strcpy(block, a[2]));
	int fd = open(a[0], n >= 3 ? O_WRONLY : O_WRONLY | O_DIRECT);
	TRY("open for writing", fd);
	if (pwrite(fd, block, length, at) != (ssize_t)length)
		return no("write");
	TRY("fsync", fsync(fd));
	return 0;
}

/* ioctl PATH REQUEST [NUMBER | @HEX] [w]: @HEX is a buffer of 4096 bytes that begins with it. */
static int any_ioctl(int n, char **a)
{
	static unsigned char buffer[4096];
	unsigned long argument = 0;
	if (n > 2 && a[2][0] == '@') {
		for (size_t at = 0; a[2][1 + 2 * at] && at < sizeof(buffer); at++)
			sscanf(a[2] + 1 + 2 * at, "%2hhx", &buffer[at]);
		argument = (unsigned long)buffer;
	} else if (n > 2) {
		argument = number(a[2]);
	}
	int fd = open(a[0], (n > 3 ? O_RDWR : O_RDONLY) | O_NONBLOCK);
	TRY("open", fd);
	TRY("ioctl", ioctl(fd, number(a[1]), argument));
	return 0;
}

static void scsi_command(struct sg_io_hdr *header, unsigned char *command, int writing, unsigned sector, void *data, unsigned char *sense)
{
	memset(header, 0, sizeof(*header));
	memset(command, 0, 10);
	command[0] = writing ? 0x2a : 0x28;
	for (int byte = 0; byte < 4; byte++)
		command[2 + byte] = sector >> (24 - 8 * byte);
	command[8] = 1;
	header->interface_id = 'S';
	header->dxfer_direction = writing ? SG_DXFER_TO_DEV : SG_DXFER_FROM_DEV;
	header->cmd_len = 10;
	header->mx_sb_len = 32;
	header->dxfer_len = 512;
	header->dxferp = data;
	header->cmdp = command;
	header->sbp = sense;
	header->timeout = 5000;
}

/* scsi PATH SECTOR [write]: reads a sector and writes it back with SG_IO; with `write` by the sg
 * driver's write(2) instead of an ioctl. */
static int scsi(int n, char **a)
{
	unsigned char command[10], sense[32], data[512];
	struct sg_io_hdr header;
	/* SG_IO asks for no permission to write where the caller has CAP_SYS_RAWIO. */
	int fd = open(a[0], n > 2 ? O_RDWR : O_RDONLY | O_NONBLOCK);
	TRY("open", fd);
	for (int writing = 0; writing < 2; writing++) {
		scsi_command(&header, command, writing, number(a[1]), data, sense);
		if (n > 2) {
			TRY("write of a command", write(fd, &header, sizeof(header)));
			TRY("read of its answer", read(fd, &header, sizeof(header)));
		} else {
			TRY(writing ? "SG_IO, a write" : "SG_IO, a read", ioctl(fd, SG_IO, &header));
		}
		if (header.status || header.host_status || header.driver_status) {
			fprintf(stderr, "poke: the disk said status %d, %d, %d\n", header.status, header.host_status, header.driver_status);
			return 1;
		}
	}
	return 0;
}

/* bsg PATH SECTOR: the same by version 4 of the interface. */
static int bsg(int n, char **a)
{
	(void)n;
	struct v4 {
		int32_t guard; uint32_t protocol, subprotocol, request_len; uint64_t request, request_tag; uint32_t request_attr, request_priority, request_extra, max_response_len;
		uint64_t response; uint32_t dout_iovec_count, dout_xfer_len, din_iovec_count, din_xfer_len; uint64_t dout_xferp, din_xferp;
		uint32_t timeout, flags; uint64_t usr_ptr; uint32_t spare_in, driver_status, transport_status, device_status, retry_delay, info, duration, response_len;
		int32_t din_resid, dout_resid; uint64_t generated_tag; uint32_t spare_out, padding;
	} v4;
	unsigned char command[10], sense[32], data[512];
	struct sg_io_hdr unused;
	int fd = open(a[0], O_RDWR);
	TRY("open", fd);
	for (int writing = 0; writing < 2; writing++) {
		scsi_command(&unused, command, writing, number(a[1]), data, sense);
		memset(&v4, 0, sizeof(v4));
		v4.guard = 'Q';
		v4.request_len = 10;
		v4.request = (uintptr_t)command;
		v4.response = (uintptr_t)sense;
		v4.max_response_len = 32;
		v4.timeout = 5000;
		if (writing) { v4.dout_xfer_len = 512; v4.dout_xferp = (uintptr_t)data; } else { v4.din_xfer_len = 512; v4.din_xferp = (uintptr_t)data; }
		TRY(writing ? "SG_IO, a write" : "SG_IO, a read", ioctl(fd, SG_IO, &v4));
		if (v4.device_status || v4.transport_status)
			return fprintf(stderr, "poke: the disk said %u, %u\n", v4.device_status, v4.transport_status), 1;
	}
	return 0;
}

/* nvme PATH BLOCK [io64]: reads a block and writes it back by the driver's passthrough. */
static int nvme(int n, char **a)
{
	static unsigned char data[4096] __attribute__((aligned(4096)));
	int fd = open(a[0], O_RDONLY);
	TRY("open", fd);
	for (int writing = 0; writing < 2; writing++) {
		if (n > 2) {
			struct nvme_passthru_cmd64 command = { .opcode = writing ? 1 : 2, .nsid = 1, .addr = (uintptr_t)data, .data_len = 512, .cdw10 = number(a[1]) };
			TRY("NVME_IOCTL_IO64_CMD", ioctl(fd, NVME_IOCTL_IO64_CMD, &command));
		} else {
			struct nvme_passthru_cmd command = { .opcode = writing ? 1 : 2, .nsid = 1, .addr = (uintptr_t)data, .data_len = 512, .cdw10 = number(a[1]) };
			TRY("NVME_IOCTL_IO_CMD", ioctl(fd, NVME_IOCTL_IO_CMD, &command));
		}
	}
	return 0;
}

/* blkpg PATH delete|add|resize NUMBER START LENGTH: the kernel's view of a partition, in bytes. */
static int blkpg(int n, char **a)
{
	struct blkpg_partition part = { .pno = number(a[2]), .start = n > 3 ? number(a[3]) : 0, .length = n > 4 ? number(a[4]) : 0 };
	struct blkpg_ioctl_arg argument = { .op = a[1][0] == 'a' ? BLKPG_ADD_PARTITION : a[1][0] == 'd' ? BLKPG_DEL_PARTITION : BLKPG_RESIZE_PARTITION, .datalen = sizeof(part), .data = &part };
	int fd = open(a[0], O_RDONLY);
	TRY("open", fd);
	TRY("BLKPG", ioctl(fd, BLKPG, &argument));
	return 0;
}

/* loop DEVICE FILE: LOOP_CONFIGURE through descriptors that are only for reading, where that is
 * enough. */
static int loop(int n, char **a)
{
	(void)n;
	struct loop_config config = { .info.lo_flags = LO_FLAGS_READ_ONLY };
	int fd = open(a[0], O_RDONLY);
	TRY("open", fd);
	config.fd = open(a[1], O_RDONLY);
	TRY("open", (int)config.fd);
	TRY("LOOP_CONFIGURE", ioctl(fd, LOOP_CONFIGURE, &config));
	return 0;
}

/* --- io_uring: one submission at a time */

struct ring { int fd; unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_mask; struct io_uring_sqe *entries; struct io_uring_cqe *answers; int big; };

static int ring_open(struct ring *ring, int big)
{
	struct io_uring_params p = {0};
	/* IORING_SETUP_SQE128 and CQE32, which NVMe passthrough needs. */
	if (big)
		p.flags = 1u << 10 | 1u << 11;
	ring->big = big;
	ring->fd = syscall(SYS_io_uring_setup, 4, &p);
	if (ring->fd < 0)
		return -1;
	size_t size = p.sq_off.array + p.sq_entries * 4, answers = p.cq_off.cqes + p.cq_entries * (big ? 32 : 16);
	char *sq = mmap(0, size > answers ? size : answers, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQ_RING);
	ring->entries = mmap(0, p.sq_entries * (big ? 128 : 64), PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, IORING_OFF_SQES);
	if (sq == MAP_FAILED || ring->entries == MAP_FAILED)
		return -1;
	char *cq = sq;
	ring->sq_tail = (unsigned *)(sq + p.sq_off.tail);
	ring->sq_mask = (unsigned *)(sq + p.sq_off.ring_mask);
	ring->sq_array = (unsigned *)(sq + p.sq_off.array);
	ring->cq_head = (unsigned *)(cq + p.cq_off.head);
	ring->cq_mask = (unsigned *)(cq + p.cq_off.ring_mask);
	ring->answers = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
	return 0;
}

static int ring_do(struct ring *ring, struct io_uring_sqe *entry, size_t size)
{
	memcpy((char *)ring->entries, entry, size);
	unsigned tail = *ring->sq_tail;
	ring->sq_array[tail & *ring->sq_mask] = 0;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (syscall(SYS_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) < 0)
		return -1;
	unsigned head = *ring->cq_head;
	struct io_uring_cqe *answer = (struct io_uring_cqe *)((char *)ring->answers + (head & *ring->cq_mask) * (ring->big ? 32 : 16));
	int result = answer->res;
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	if (result < 0) {
		errno = -result;
		return -1;
	}
	return result;
}

/* uring PATH OFFSET [TEXT]: opens and writes without openat and write. Without a text, the same
 * bytes as are there. */
static int uring(int n, char **a)
{
	struct ring ring;
	static char block[4096];
	size_t length = 512;
	int in = open(a[0], O_RDONLY);
	if (in >= 0 && n < 3)
		pread(in, block, sizeof(block), number(a[1]));
	if (n >= 3)
		length = strlen(strcpy(block, a[2]));
	TRY("io_uring_setup", ring_open(&ring, 0));
	struct io_uring_sqe open_it = { .opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)a[0], .open_flags = O_RDWR };
	int fd = ring_do(&ring, &open_it, 64);
	TRY("IORING_OP_OPENAT", fd);
	struct io_uring_sqe write_it = { .opcode = IORING_OP_WRITE, .fd = fd, .addr = (uintptr_t)block, .len = length, .off = number(a[1]) };
	int written = ring_do(&ring, &write_it, 64);
	TRY("IORING_OP_WRITE", written);
	TRY("fsync", fsync(fd));
	return written == (int)length ? 0 : 1;
}

/* uring-nvme PATH BLOCK: IORING_OP_URING_CMD with NVME_URING_CMD_IO, a block read and written
 * back. */
static int uring_nvme(int n, char **a)
{
	(void)n;
	struct ring ring;
	static unsigned char data[4096] __attribute__((aligned(4096)));
	int fd = open(a[0], O_RDWR);
	TRY("open", fd);
	TRY("io_uring_setup", ring_open(&ring, 1));
	for (int writing = 0; writing < 2; writing++) {
		unsigned char entry[128] = {0};
		struct io_uring_sqe *sqe = (void *)entry;
		sqe->opcode = IORING_OP_URING_CMD;
		sqe->fd = fd;
		sqe->off = _IOWR('N', 0x80, struct nvme_uring_cmd);
		struct nvme_uring_cmd *command = (void *)(entry + 48);
		command->opcode = writing ? 1 : 2;
		command->nsid = 1;
		command->addr = (uintptr_t)data;
		command->data_len = 512;
		command->cdw10 = number(a[1]);
		TRY(writing ? "URING_CMD, a write" : "URING_CMD, a read", ring_do(&ring, sqe, 128));
	}
	return 0;
}

/* uring-path mkdir|unlink|rename|symlink PATH [PATH] */
static int uring_path(int n, char **a)
{
	struct ring ring;
	TRY("io_uring_setup", ring_open(&ring, 0));
	struct io_uring_sqe sqe = { .fd = AT_FDCWD, .addr = (uintptr_t)a[1] };
	switch (a[0][0]) {
	case 'm': sqe.opcode = IORING_OP_MKDIRAT; sqe.len = 0755; break;
	case 'u': sqe.opcode = IORING_OP_UNLINKAT; break;
	case 'r': sqe.opcode = IORING_OP_RENAMEAT; sqe.len = AT_FDCWD; sqe.off = (uintptr_t)a[n > 2 ? 2 : 1]; break;
	default: sqe.opcode = IORING_OP_SYMLINKAT; sqe.addr2 = (uintptr_t)a[n > 2 ? 2 : 1]; break;
	}
	TRY("io_uring", ring_do(&ring, &sqe, 64));
	return 0;
}

/* --- code in memory */

/* mov eax, 42; ret */
static const unsigned char code[] = { 0xb8, 42, 0, 0, 0, 0xc3 };

static int run(void *at) { int answer = ((int (*)(void))at)(); printf("code ran: %d\n", answer); return answer == 42 ? 0 : 1; }

/* memory anonymous|shared|rwx|mprotect|pkey|heap|stack|memfd|shm|personality|private FILE|map
 * FILE|uffd|mremap FILE|writev|self FILE|thread */
static int memory(int n, char **a)
{
	const char *how = a[0];
	void *at;
	int fd;
	if (!strcmp(how, "anonymous") || !strcmp(how, "shared")) {
		at = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, (how[0] == 'a' ? MAP_PRIVATE : MAP_SHARED) | MAP_ANONYMOUS, -1, 0);
		if (at == MAP_FAILED)
			return no("mmap");
		return run(memcpy(at, code, sizeof(code)));
	}
	if (!strcmp(how, "mprotect") || !strcmp(how, "pkey")) {
		at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memcpy(at, code, sizeof(code));
		TRY("mprotect", how[0] == 'm' ? mprotect(at, 4096, PROT_READ | PROT_EXEC) : syscall(SYS_pkey_mprotect, at, 4096, PROT_READ | PROT_EXEC, -1));
		return run(at);
	}
	if (!strcmp(how, "heap") || !strcmp(how, "stack")) {
		unsigned char local[64];
		at = how[0] == 'h' ? memcpy(malloc(4096), code, sizeof(code)) : memcpy(local, code, sizeof(code));
		TRY("mprotect", mprotect((void *)((uintptr_t)at & ~4095ul), 4096, PROT_READ | PROT_WRITE | PROT_EXEC));
		return run(at);
	}
	if (!strcmp(how, "grow-stack")) {
		/* PROT_GROWSDOWN reaches to the beginning of the area. */
		unsigned char local[64];
		memcpy(local, code, sizeof(code));
		TRY("mprotect", mprotect((void *)((uintptr_t)local & ~4095ul), 4096, PROT_READ | PROT_WRITE | PROT_EXEC | PROT_GROWSDOWN));
		return run(local);
	}
	if (!strcmp(how, "memfd")) {
		TRY("memfd_create", fd = syscall(SYS_memfd_create, "x", 0));
		write(fd, code, sizeof(code));
		at = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
		return at == MAP_FAILED ? no("mmap") : run(at);
	}
	if (!strcmp(how, "memfd-secret")) {
		TRY("memfd_secret", fd = syscall(447, 0));
		TRY("ftruncate", ftruncate(fd, 4096));
		at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (at == MAP_FAILED)
			return no("mmap");
		memcpy(at, code, sizeof(code));
		TRY("mprotect", mprotect(at, 4096, PROT_READ | PROT_EXEC));
		return run(at);
	}
	if (!strcmp(how, "huge")) {
		at = mmap(0, 2 << 20, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
		return at == MAP_FAILED ? no("mmap") : run(memcpy(at, code, sizeof(code)));
	}
	if (!strcmp(how, "shm")) {
		int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0700);
		TRY("shmget", id);
		at = shmat(id, 0, 0);
		memcpy(at, code, sizeof(code));
		at = shmat(id, 0, SHM_EXEC);
		int error = errno;
		shmctl(id, IPC_RMID, 0);
		errno = error;
		return at == (void *)-1 ? no("shmat") : run(at);
	}
	if (!strcmp(how, "personality") || !strcmp(how, "brk")) {
		TRY("personality", personality(READ_IMPLIES_EXEC));
		if (how[0] == 'b') {
			char *end = sbrk(0);
			at = sbrk(65536) == (void *)-1 ? MAP_FAILED : (void *)(((uintptr_t)end + 8191) & ~4095ul);
		} else {
			at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		}
		return at == MAP_FAILED ? no("memory with READ_IMPLIES_EXEC") : run(memcpy(at, code, sizeof(code)));
	}
	if (!strcmp(how, "remap")) {
		/* remap_file_pages makes a new mapping from an old one's flags. */
		at = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
		memcpy(at, code, sizeof(code));
		TRY("personality", personality(READ_IMPLIES_EXEC));
		TRY("remap_file_pages", syscall(SYS_remap_file_pages, at, 4096, 0, 0, 0));
		return run(at);
	}
	if (!strcmp(how, "uffd")) {
		TRY("userfaultfd", fd = syscall(SYS_userfaultfd, O_CLOEXEC));
		struct uffdio_api api = { .api = UFFD_API };
		TRY("UFFDIO_API", ioctl(fd, UFFDIO_API, &api));
		at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		struct uffdio_register area = { .range = { (uintptr_t)at, 4096 }, .mode = UFFDIO_REGISTER_MODE_MISSING };
		TRY("UFFDIO_REGISTER", ioctl(fd, UFFDIO_REGISTER, &area));
		TRY("mprotect", mprotect(at, 4096, PROT_READ | PROT_EXEC));
		static unsigned char page[4096] __attribute__((aligned(4096)));
		memcpy(page, code, sizeof(code));
		struct uffdio_copy copy = { .dst = (uintptr_t)at, .src = (uintptr_t)page, .len = 4096 };
		TRY("UFFDIO_COPY", ioctl(fd, UFFDIO_COPY, &copy));
		return run(at);
	}
	if (n < 2)
		return 2;
	/* With a file. */
	fd = open(a[1], O_RDONLY);
	TRY("open", fd);
	if (!strcmp(how, "map")) { /* a file that holds the code, executable at once */
		at = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
		return at == MAP_FAILED ? no("mmap") : run(at);
	}
	if (!strcmp(how, "map-later")) { /* executable later */
		at = mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
		if (at == MAP_FAILED)
			return no("mmap");
		TRY("mprotect", mprotect(at, 4096, PROT_READ | PROT_EXEC));
		return run(at);
	}
	if (!strcmp(how, "private")) { /* a page of the image's, written to, then executed */
		at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
		if (at == MAP_FAILED)
			return no("mmap");
		memcpy(at, code, sizeof(code));
		TRY("mprotect", mprotect(at, 4096, PROT_READ | PROT_EXEC));
		return run(at);
	}
	if (!strcmp(how, "private-rwx")) {
		at = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE, fd, 0);
		return at == MAP_FAILED ? no("mmap") : run(memcpy(at, code, sizeof(code)));
	}
	if (!strcmp(how, "fork")) { /* written by the parent, executed by the child, which has the page but not the area */
		at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
		memcpy(at, code, sizeof(code));
		pid_t child = fork();
		if (!child) {
			if (mprotect(at, 4096, PROT_READ | PROT_EXEC) < 0)
				_exit(no("mprotect"));
			_exit(run(at));
		}
		int status;
		waitpid(child, &status, 0);
		return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	}
	if (!strcmp(how, "mremap")) { /* a written page moved next to a clean one */
		char *two = mmap(0, 8192, PROT_READ, MAP_PRIVATE, fd, 0);
		at = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
		if (two == MAP_FAILED || at == MAP_FAILED)
			return no("mmap");
		memcpy(at, code, sizeof(code));
		mprotect(at, 4096, PROT_READ);
		if (mremap(at, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, two) == MAP_FAILED)
			return no("mremap");
		TRY("mprotect", mprotect(two, 8192, PROT_READ | PROT_EXEC));
		return run(two);
	}
	if (!strcmp(how, "self")) { /* /proc/self/mem writes where nothing may be written */
		at = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
		int mem = open("/proc/self/mem", O_RDWR);
		TRY("open /proc/self/mem", mem);
		if (pwrite(mem, code, sizeof(code), (off_t)(uintptr_t)at) != sizeof(code))
			return no("write to /proc/self/mem");
		return run(at);
	}
	if (!strcmp(how, "writev")) { /* process_vm_writev to oneself needs no permission */
		at = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
		struct iovec from = { (void *)code, sizeof(code) }, to = { at, sizeof(code) };
		TRY("process_vm_writev", syscall(SYS_process_vm_writev, getpid(), &from, 1, &to, 1, 0));
		return run(at);
	}
	if (!strcmp(how, "ptrace")) { /* a debugger writes to its child where nothing may be written */
		at = mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
		if (at == MAP_FAILED)
			return no("mmap");
		pid_t child = fork();
		if (!child) {
			if (ptrace(PTRACE_TRACEME, 0, 0, 0) < 0)
				_exit(no("PTRACE_TRACEME"));
			raise(SIGSTOP);
			_exit(run(at));
		}
		int status;
		waitpid(child, &status, 0);
		if (WIFEXITED(status))
			return WEXITSTATUS(status);
		uint64_t word = 0;
		memcpy(&word, code, sizeof(code));
		if (ptrace(PTRACE_POKETEXT, child, at, word) < 0)
			return no("PTRACE_POKETEXT");
		ptrace(PTRACE_CONT, child, 0, 0);
		waitpid(child, &status, 0);
		return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
	}
	return 2;
}

static int copy_into(int fd, const char *path)
{
	static char block[65536];
	int in = open(path, O_RDONLY);
	if (in < 0)
		return -1;
	for (ssize_t got; (got = read(in, block, sizeof(block))) > 0;)
		if (write(fd, block, got) != got)
			return -1;
	close(in);
	return 0;
}

/* memfd PROGRAM [noexec-seal]: executes a copy of it that is in no file system. */
static int memfd(int n, char **a)
{
	(void)n;
	/* MFD_EXEC where the kernel knows it. */
	int fd = syscall(SYS_memfd_create, "x", 0x10);
	if (fd < 0)
		fd = syscall(SYS_memfd_create, "x", 0);
	TRY("memfd_create", fd);
	TRY("copy", copy_into(fd, a[0]));
	char *arguments[] = { "memfd", "hello", 0 }, *environment[] = { 0 };
	syscall(SYS_execveat, fd, "", arguments, environment, AT_EMPTY_PATH);
	return no("execveat");
}

/* tmpfile FOLDER PROGRAM: executes a copy without a name. */
static int tmpfile_(int n, char **a)
{
	(void)n;
	char path[64];
	int fd = open(a[0], O_TMPFILE | O_RDWR, 0755);
	TRY("O_TMPFILE", fd);
	TRY("copy", copy_into(fd, a[1]));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int again = open(path, O_RDONLY);
	TRY("open again", again);
	close(fd);
	char *arguments[] = { "tmpfile", "hello", 0 }, *environment[] = { 0 };
	syscall(SYS_execveat, again, "", arguments, environment, AT_EMPTY_PATH);
	return no("execveat");
}

/* --- mounts */

static int fs_open(const char *type) { return syscall(SYS_fsopen, type, 0); }
static int fs_set(int fd, const char *key, const char *value) { return syscall(SYS_fsconfig, fd, value ? 1 /* string */ : 0 /* flag */, key, value, 0); }
static int fs_make(int fd) { return syscall(SYS_fsconfig, fd, 6 /* create */, 0, 0, 0) < 0 ? -1 : (int)syscall(SYS_fsmount, fd, 0, 0); }
static int attach(int tree, const char *to) { return syscall(SYS_move_mount, tree, "", AT_FDCWD, to, 4 /* from is empty */); }

/* fsmount TYPE TARGET [KEY=VALUE]... */
static int fsmount_(int n, char **a)
{
	int fd = fs_open(a[0]);
	TRY("fsopen", fd);
	for (int at = 2; at < n; at++) {
		char *value = strchr(a[at], '=');
		if (value)
			*value++ = 0;
		TRY("fsconfig", fs_set(fd, a[at], value));
	}
	int mounted = fs_make(fd);
	TRY("fsmount", mounted);
	TRY("move_mount", attach(mounted, a[1]));
	return 0;
}

/* clone SOURCE TARGET: open_tree and move_mount, a bind mount without mount(2). */
static int clone_tree(int n, char **a)
{
	(void)n;
	int tree = syscall(SYS_open_tree, AT_FDCWD, a[0], 1 /* clone */);
	TRY("open_tree", tree);
	TRY("move_mount", attach(tree, a[1]));
	return 0;
}

/* move SOURCE TARGET: the mount itself. beneath SOURCE TARGET: a clone of it below what is
 * mounted there. */
static int move_(int n, char **a)
{
	(void)n;
	TRY("move_mount", syscall(SYS_move_mount, AT_FDCWD, a[0], AT_FDCWD, a[1], 0));
	return 0;
}

static int beneath(int n, char **a)
{
	(void)n;
	int tree = syscall(SYS_open_tree, AT_FDCWD, a[0], 1);
	TRY("open_tree", tree);
	TRY("move_mount", syscall(SYS_move_mount, tree, "", AT_FDCWD, a[1], 4 | 0x200));
	return 0;
}

/* setattr PATH CLEAR SET [PROPAGATION]: bits of MOUNT_ATTR_*. */
static int setattr(int n, char **a)
{
	struct { uint64_t set, clear, propagation, userns; } attributes = { number(a[2]), number(a[1]), n > 3 ? number(a[3]) : 0, 0 };
	TRY("mount_setattr", syscall(SYS_mount_setattr, AT_FDCWD, a[0], 0, &attributes, sizeof(attributes)));
	return 0;
}

/* reconfigure PATH KEY: fspick and FSCONFIG_CMD_RECONFIGURE, with a flag such as rw. */
static int reconfigure(int n, char **a)
{
	(void)n;
	int fd = syscall(SYS_fspick, AT_FDCWD, a[0], 0);
	TRY("fspick", fd);
	TRY("fsconfig", syscall(SYS_fsconfig, fd, 0 /* flag */, a[1], 0, 0));
	TRY("reconfigure", syscall(SYS_fsconfig, fd, 7, 0, 0, 0));
	return 0;
}

/* umount PATH FLAGS */
static int umount_(int n, char **a) { (void)n; TRY("umount2", umount2(a[0], number(a[1]))); return 0; }

/* pivot NEW OLD: and back again. OLD lies in NEW. */
static int pivot(int n, char **a)
{
	(void)n;
	char back[4096];
	const char *old = a[1] + strlen(a[0]);
	TRY("pivot_root", syscall(SYS_pivot_root, a[0], a[1]));
	snprintf(back, sizeof(back), "%s%s", old, a[0]);
	if (chdir("/") < 0 || syscall(SYS_pivot_root, old, back) < 0)
		no("pivot_root back");
	return 0;
}

/* handle PATH FLAGS [TEXT]: the file by its handle, no path leads to it. With a text, that is
 * written. */
static int handle(int n, char **a)
{
	struct { struct file_handle handle; unsigned char room[128]; } h = { .handle = { .handle_bytes = 128 } };
	int mount_id;
	TRY("name_to_handle_at", name_to_handle_at(AT_FDCWD, a[0], &h.handle, &mount_id, 0));
	char folder[4096];
	snprintf(folder, sizeof(folder), "%s", a[0]);
	char *slash = strrchr(folder, '/');
	if (slash && slash != folder)
		*slash = 0;
	int at = open(folder, O_RDONLY | O_DIRECTORY);
	TRY("open of the folder", at);
	int fd = open_by_handle_at(at, &h.handle, number(a[1]));
	TRY("open_by_handle_at", fd);
	if (n > 2 && write(fd, a[2], strlen(a[2])) != (ssize_t)strlen(a[2]))
		return no("write");
	return 0;
}

/* exchange PATH PATH: renameat2 with RENAME_EXCHANGE. */
static int exchange(int n, char **a) { (void)n; TRY("renameat2", syscall(SYS_renameat2, AT_FDCWD, a[0], AT_FDCWD, a[1], 2)); return 0; }

/* --- device mapper */

static int dm_call(int fd, unsigned long request, struct dm_ioctl *header, size_t size)
{
	header->version[0] = DM_VERSION_MAJOR;
	header->data_size = size;
	header->data_start = sizeof(*header);
	return ioctl(fd, request, header);
}

/* dm create NAME SECTORS TYPE PARAMETERS | dm load NAME SECTORS TYPE PARAMETERS | dm
 * remove|suspend|rename NAME [NEW] | dm message NAME TEXT */
static int dm(int n, char **a)
{
	static char buffer[16384];
	struct dm_ioctl *header = (void *)buffer;
	struct dm_target_spec *target = (void *)(header + 1);
	int fd = open("/dev/mapper/control", O_RDONLY);
	TRY("open /dev/mapper/control", fd);
	snprintf(header->name, sizeof(header->name), "%s", a[1]);
	if (!strcmp(a[0], "create"))
		TRY("DM_DEV_CREATE", dm_call(fd, DM_DEV_CREATE, header, sizeof(buffer)));
	if (!strcmp(a[0], "create") || !strcmp(a[0], "load")) {
		if (n < 5)
			return 2;
		memset(header, 0, sizeof(*header));
		snprintf(header->name, sizeof(header->name), "%s", a[1]);
		header->target_count = 1;
		header->flags = strcmp(a[0], "load") && !strstr(a[3], "verity") ? 0 : DM_READONLY_FLAG;
		target->length = number(a[2]);
		snprintf(target->target_type, sizeof(target->target_type), "%s", a[3]);
		strcpy((char *)(target + 1), a[4]);
		int loaded = dm_call(fd, DM_TABLE_LOAD, header, sizeof(buffer));
		int error = errno;
		if (loaded == 0) {
			memset(header, 0, sizeof(*header));
			snprintf(header->name, sizeof(header->name), "%s", a[1]);
			loaded = dm_call(fd, DM_DEV_SUSPEND, header, sizeof(buffer)); /* without the flag: resume */
			error = errno;
		}
		if (loaded < 0 && a[0][0] == 'c') {
			memset(header, 0, sizeof(*header));
			snprintf(header->name, sizeof(header->name), "%s", a[1]);
			dm_call(fd, DM_DEV_REMOVE, header, sizeof(buffer));
		}
		errno = error;
		TRY("DM_TABLE_LOAD", loaded);
		return 0;
	}
	if (!strcmp(a[0], "remove"))
		TRY("DM_DEV_REMOVE", dm_call(fd, DM_DEV_REMOVE, header, sizeof(buffer)));
	if (!strcmp(a[0], "defer")) {
		header->flags = DM_DEFERRED_REMOVE;
		TRY("DM_DEV_REMOVE", dm_call(fd, DM_DEV_REMOVE, header, sizeof(buffer)));
	}
	if (!strcmp(a[0], "suspend")) {
		/* And resumed at once: a suspended root is a machine that hangs. */
		header->flags = DM_SUSPEND_FLAG | DM_NOFLUSH_FLAG | (1 << 3);
		TRY("DM_DEV_SUSPEND", dm_call(fd, DM_DEV_SUSPEND, header, sizeof(buffer)));
		memset(header, 0, sizeof(*header));
		snprintf(header->name, sizeof(header->name), "%s", a[1]);
		TRY("resume", dm_call(fd, DM_DEV_SUSPEND, header, sizeof(buffer)));
	}
	if (!strcmp(a[0], "rename")) {
		strcpy((char *)(header + 1), a[2]);
		TRY("DM_DEV_RENAME", dm_call(fd, DM_DEV_RENAME, header, sizeof(buffer)));
	}
	return 0;
}

/* --- the kernel */

/* module PATH | module-bytes PATH: finit_module or init_module. */
static int module(int n, char **a)
{
	(void)n;
	int fd = open(a[0], O_RDONLY);
	TRY("open", fd);
	TRY("finit_module", syscall(SYS_finit_module, fd, "", 0));
	return 0;
}

static int module_bytes(int n, char **a)
{
	(void)n;
	struct stat found;
	int fd = open(a[0], O_RDONLY);
	TRY("open", fd);
	fstat(fd, &found);
	void *bytes = mmap(0, found.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	TRY("init_module", syscall(SYS_init_module, bytes, found.st_size, ""));
	return 0;
}

/* uevent DEVPATH SUBSYSTEM MODALIAS: has the kernel pass on an event as if it were its own. */
static int uevent(int n, char **a)
{
	(void)n;
	struct { struct nlmsghdr head; char text[1024]; } message = { .head = { .nlmsg_type = NLMSG_MIN_TYPE, .nlmsg_flags = NLM_F_REQUEST } };
	int length = snprintf(message.text, sizeof(message.text), "add@%s%cACTION=add%cDEVPATH=%s%cSUBSYSTEM=%s%cMODALIAS=%s", a[0], 0, 0, a[0], 0, a[1], 0, a[2]) + 1;
	message.head.nlmsg_len = sizeof(message.head) + length;
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT);
	TRY("socket", fd);
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	TRY("sendto", sendto(fd, &message, message.head.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof(kernel)));
	return 0;
}

/* into CGROUP PROGRAM...: runs a program as a new process of that cgroup. */
static int into(int n, char **a)
{
	(void)n;
	int cgroup = open(a[0], O_PATH | O_DIRECTORY), status = 0;
	TRY("open", cgroup);
	struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; } how = {
		.flags = 0x200000000ull /* CLONE_INTO_CGROUP */, .exit_signal = SIGCHLD, .cgroup = cgroup };
	long child = syscall(SYS_clone3, &how, sizeof(how));
	TRY("clone3", child);
	if (!child) {
		execv(a[1], a + 1);
		_exit(no("exec"));
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* kexec-file PATH: loads a kernel to be started next, and unloads it again. kexec: a segment by
 * the older call. */
static int kexec_file(int n, char **a)
{
	(void)n;
	int fd = open(a[0], O_RDONLY);
	TRY("open", fd);
	TRY("kexec_file_load", syscall(SYS_kexec_file_load, fd, -1, 1, "", 4 /* no initramfs */));
	syscall(SYS_kexec_file_load, -1, -1, 0, 0, 1);
	return 0;
}

static int kexec(int n, char **a)
{
	(void)n, (void)a;
	static char page[4096] __attribute__((aligned(4096)));
	struct { void *buffer; size_t size; unsigned long at; size_t room; } segment = { page, 4096, 0x1000000, 4096 };
	TRY("kexec_load", syscall(SYS_kexec_load, 0x1000000, 1, &segment, 62ul << 16));
	syscall(SYS_kexec_load, 0, 0, 0, 62ul << 16);
	return 0;
}

/* bpf KIND: what a program, map or link of BPF can be asked for. Those that look for the guard's
 * own say whose they got. */
static int bpf_call(int command, union bpf_attr *attributes) { return syscall(SYS_bpf, command, attributes, sizeof(*attributes)); }

static int bpf_each(int next, int get, int links)
{
	union bpf_attr attributes;
	unsigned id = 0;
	int found = 0;
	for (int times = 0, hidden = 0; times < 500; times++) {
		memset(&attributes, 0, sizeof(attributes));
		attributes.start_id = id;
		/* Where the list is refused, the numbers are still easily guessed. */
		if (!hidden && bpf_call(next, &attributes) < 0) {
			if (errno == ENOENT)
				break;
			no("the list of ids");
			hidden = 1;
		}
		id = hidden ? id + 1 : attributes.next_id;
		memset(&attributes, 0, sizeof(attributes));
		attributes.prog_id = id;
		int fd = bpf_call(get, &attributes);
		if (fd < 0)
			continue;
		char info[256] = {0};
		memset(&attributes, 0, sizeof(attributes));
		attributes.info.bpf_fd = fd;
		attributes.info.info_len = sizeof(info);
		attributes.info.info = (uintptr_t)info;
		int told = bpf_call(BPF_OBJ_GET_INFO_BY_FD, &attributes);
		/* The name is at 64 in a program's description, at 24 in a map's; links are the guard's
		 * where they are of LSM programs. */
		const char *name = get == BPF_PROG_GET_FD_BY_ID ? info + 64 : info + 24;
		if (links ? *(unsigned *)info == 2 /* tracing */ : told == 0 && !strncmp(name, "adamant_", 8)) {
			printf("got %s (id %u)\n", links ? "a link" : name, id);
			found++;
			if (links) {
				memset(&attributes, 0, sizeof(attributes));
				attributes.link_detach.link_fd = fd;
				if (bpf_call(BPF_LINK_DETACH, &attributes) == 0)
					puts("and detached it");
			}
		}
		close(fd);
	}
	if (!found)
		fprintf(stderr, "poke: no such id is to be had\n");
	return found ? 0 : 1;
}

static int bpf_load(unsigned kind, unsigned helper, unsigned expected)
{
	/* r1 = 9; call helper; r0 = 0; exit */
	struct bpf_insn with[] = {
		{ .code = 0xb7, .dst_reg = 1, .imm = 9 }, { .code = 0x85, .imm = helper }, { .code = 0xb7, .dst_reg = 0, .imm = 0 }, { .code = 0x95 },
	}, without[] = { { .code = 0xb7, .dst_reg = 0, .imm = 0 }, { .code = 0x95 } };
	union bpf_attr attributes = { .prog_type = kind };
	attributes.insns = (uintptr_t)(helper ? with : without);
	attributes.insn_cnt = helper ? 4 : 2;
	attributes.license = (uintptr_t)"GPL";
	attributes.expected_attach_type = expected;
	return bpf_call(BPF_PROG_LOAD, &attributes);
}

static int bpf(int n, char **a)
{
	const char *what = a[0];
	union bpf_attr attributes = {0};
	if (!strcmp(what, "links"))
		return bpf_each(BPF_LINK_GET_NEXT_ID, BPF_LINK_GET_FD_BY_ID, 1);
	if (!strcmp(what, "programs"))
		return bpf_each(BPF_PROG_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID, 0);
	if (!strcmp(what, "maps"))
		return bpf_each(BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID, 0);
	if (!strcmp(what, "kill")) { /* a kprobe's program that kills whoever comes by: bpf_send_signal */
		TRY("BPF_PROG_LOAD", bpf_load(BPF_PROG_TYPE_KPROBE, 109, 0));
		return 0;
	}
	if (!strcmp(what, "kprobe")) {
		TRY("BPF_PROG_LOAD", bpf_load(BPF_PROG_TYPE_KPROBE, 0, 0));
		return 0;
	}
	if (!strcmp(what, "tracepoint")) {
		TRY("BPF_PROG_LOAD", bpf_load(BPF_PROG_TYPE_RAW_TRACEPOINT, 109, 0));
		return 0;
	}
	if (!strcmp(what, "socket")) {
		TRY("BPF_PROG_LOAD", bpf_load(BPF_PROG_TYPE_SOCKET_FILTER, 0, 0));
		return 0;
	}
	if (!strcmp(what, "xdp")) {
		TRY("BPF_PROG_LOAD", bpf_load(BPF_PROG_TYPE_XDP, 0, 0));
		return 0;
	}
	if (!strcmp(what, "cgroup")) { /* for a cgroup: systemd's kind, from somebody else */
		TRY("BPF_PROG_LOAD", bpf_load(BPF_PROG_TYPE_CGROUP_SYSCTL, 0, 0));
		return 0;
	}
	if (!strcmp(what, "map")) {
		attributes.map_type = BPF_MAP_TYPE_ARRAY;
		attributes.key_size = 4;
		attributes.value_size = 8;
		attributes.max_entries = 1;
		TRY("BPF_MAP_CREATE", bpf_call(BPF_MAP_CREATE, &attributes));
		return 0;
	}
	if (!strcmp(what, "pinned") && n > 1) {
		attributes.pathname = (uintptr_t)a[1];
		TRY("BPF_OBJ_GET", bpf_call(BPF_OBJ_GET, &attributes));
		return 0;
	}
	return 2;
}

/* perf: a hardware event of the whole system, with the kernel's addresses. */
static int perf(int n, char **a)
{
	(void)n, (void)a;
	struct perf_event_attr attributes = { .type = PERF_TYPE_SOFTWARE, .size = sizeof(attributes), .config = PERF_COUNT_SW_CPU_CLOCK, .sample_period = 100000, .sample_type = PERF_SAMPLE_IP };
	TRY("perf_event_open", syscall(SYS_perf_event_open, &attributes, -1, 0, -1, 0));
	return 0;
}

/* clock settime|settimeofday|adjtimex|adjtime SECONDS: sets the clock back to it, looks, and
 * sets it forward again. */
static int clock_(int n, char **a)
{
	(void)n;
	struct timespec before, now, wanted = { number(a[1]), 0 };
	clock_gettime(CLOCK_REALTIME, &before);
	if (!strcmp(a[0], "settime")) {
		TRY("clock_settime", clock_settime(CLOCK_REALTIME, &wanted));
	} else if (!strcmp(a[0], "settimeofday")) {
		struct timeval value = { wanted.tv_sec, 0 };
		TRY("settimeofday", settimeofday(&value, 0));
	} else {
		struct timex value = { .modes = ADJ_SETOFFSET, .time = { wanted.tv_sec - before.tv_sec, 0 } };
		TRY("adjtimex", a[0][3] == 't' && a[0][4] == 'i' && a[0][5] == 'm' && a[0][6] == 'e' && a[0][7] == 'x' ? adjtimex(&value) : (int)syscall(SYS_clock_adjtime, CLOCK_REALTIME, &value));
	}
	clock_gettime(CLOCK_REALTIME, &now);
	clock_settime(CLOCK_REALTIME, &before);
	printf("the clock said %ld\n", (long)now.tv_sec);
	return now.tv_sec < before.tv_sec - 1000 ? 0 : 1;
}

/* --- other processes */

/* trace PID: attaches and lets go. seize PID the same with PTRACE_SEIZE. */
static int trace(int n, char **a)
{
	(void)n;
	pid_t pid = number(a[0]);
	int seize = n > 1;
	TRY(seize ? "PTRACE_SEIZE" : "PTRACE_ATTACH", ptrace(seize ? PTRACE_SEIZE : PTRACE_ATTACH, pid, 0, 0));
	if (!seize) {
		waitpid(pid, 0, __WALL);
		ptrace(PTRACE_DETACH, pid, 0, 0);
	}
	return 0;
}

/* stack PID: the beginning of its stack's area, from its memory map; 0 where it is not told. */
static unsigned long stack_of(pid_t pid)
{
	char line[512], path[64];
	unsigned long found = 0, end = 0;
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	FILE *maps = fopen(path, "r");
	while (maps && fgets(line, sizeof(line), maps))
		if (strstr(line, "[stack]"))
			sscanf(line, "%lx-%lx", &found, &end);
	if (maps)
		fclose(maps);
	return end ? end - 8 : 0;
}

/* vm-write PID: the last eight bytes of its stack, which are always zero, with themselves.
 * mem-write PID: the same through /proc/PID/mem. */
static int vm_write(int n, char **a)
{
	(void)n;
	uint64_t zero = 0;
	pid_t pid = number(a[0]);
	unsigned long at = stack_of(pid);
	if (!at)
		return no("the memory map");
	struct iovec from = { &zero, 8 }, to = { (void *)at, 8 };
	TRY("process_vm_writev", syscall(SYS_process_vm_writev, pid, &from, 1, &to, 1, 0));
	return 0;
}

static int mem_write(int n, char **a)
{
	(void)n;
	char path[64];
	uint64_t zero = 0;
	pid_t pid = number(a[0]);
	unsigned long at = stack_of(pid);
	if (!at)
		return no("the memory map");
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	int fd = open(path, O_RDWR);
	TRY("open", fd);
	if (pwrite(fd, &zero, 8, at) != 8)
		return no("write");
	return 0;
}

/* steal PID FD: pidfd_getfd. */
static int steal(int n, char **a)
{
	(void)n;
	int pid = syscall(SYS_pidfd_open, (int)number(a[0]), 0);
	TRY("pidfd_open", pid);
	TRY("pidfd_getfd", syscall(SYS_pidfd_getfd, pid, (int)number(a[1]), 0));
	return 0;
}

/* signal PID SIGNAL: by pidfd_send_signal. */
static int signal_(int n, char **a)
{
	(void)n;
	int pid = syscall(SYS_pidfd_open, (int)number(a[0]), 0);
	TRY("pidfd_open", pid);
	TRY("pidfd_send_signal", syscall(SYS_pidfd_send_signal, pid, (int)number(a[1]), 0, 0));
	return 0;
}

/* prlimit PID SECONDS: its processor time ends there. */
static int limit(int n, char **a)
{
	(void)n;
	uint64_t both[2] = { number(a[1]), number(a[1]) };
	TRY("prlimit", syscall(SYS_prlimit64, (int)number(a[0]), 0 /* RLIMIT_CPU */, both, 0));
	return 0;
}

/* swapon PATH | swapoff PATH */
static int swap_on(int n, char **a) { (void)n; TRY("swapon", syscall(SYS_swapon, a[0], 0)); syscall(SYS_swapoff, a[0]); return 0; }

/* hello: what an attacker's program says when it runs. */
static int hello(int n, char **a) { (void)n, (void)a; printf("evil program ran uid=%d euid=%d\n", getuid(), geteuid()); return 0; }

static const struct { const char *name; int arguments; int (*run)(int, char **); } commands[] = {
	{ "hello", 0, hello }, { "write", 2, write_there }, { "ioctl", 2, any_ioctl }, { "scsi", 2, scsi }, { "bsg", 2, bsg }, { "nvme", 2, nvme }, { "blkpg", 3, blkpg }, { "loop", 2, loop }, { "uring", 2, uring },
	{ "uring-nvme", 2, uring_nvme }, { "uring-path", 2, uring_path }, { "memory", 1, memory }, { "memfd", 1, memfd }, { "tmpfile", 2, tmpfile_ }, { "fsmount", 2, fsmount_ },
	{ "clone", 2, clone_tree }, { "move", 2, move_ }, { "beneath", 2, beneath }, { "setattr", 3, setattr }, { "reconfigure", 2, reconfigure }, { "umount", 2, umount_ },
	{ "pivot", 2, pivot }, { "handle", 2, handle }, { "exchange", 2, exchange }, { "dm", 2, dm }, { "module", 1, module }, { "module-bytes", 1, module_bytes },
	{ "uevent", 3, uevent }, { "into", 2, into },
	{ "kexec-file", 1, kexec_file }, { "kexec", 0, kexec }, { "bpf", 1, bpf }, { "perf", 0, perf }, { "clock", 2, clock_ }, { "trace", 1, trace },
	{ "vm-write", 1, vm_write }, { "mem-write", 1, mem_write }, { "steal", 2, steal }, { "signal", 2, signal_ }, { "limit", 2, limit }, { "swapon", 1, swap_on },
};

int main(int count, char **arguments)
{
	setvbuf(stdout, 0, _IONBF, 0);
	/* Without arguments it says hello: a file system that is mounted with it has nobody who
	 * gives it any. */
	const char *name = count > 1 ? arguments[1] : "hello";
	for (size_t at = 0; at < sizeof(commands) / sizeof(*commands); at++)
		if (!strcmp(commands[at].name, name) && count - 2 >= commands[at].arguments)
			return commands[at].run(count - 2, arguments + 2);
	if (count == 1)
		return hello(0, 0);
	fprintf(stderr, "poke: no command %s with so few arguments\n", name);
	return 2;
}
#endif
