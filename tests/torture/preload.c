/* Faults for one process, preloaded (LD_PRELOAD): the nth operation on a file below one of the roots fails, is cut short,
 * or is the last one that the process makes. The environment says which; the same numbers give the same fault for the same
 * order of operations.
 *
 *   TORTURE_ROOTS  folders, separated by ':'; nothing outside them is touched
 *   TORTURE_KIND   none | kill | power | full | io | read | short | clock
 *   TORTURE_AT     the operation at which it begins, from 1 (writing operations; for `read`, reading ones)
 *   TORTURE_FOR    for how many operations it lasts, 0 for ever
 *   TORTURE_SEED   everything random follows from it
 *   TORTURE_MARK   a file that gets a line when the fault begins, and one with the numbers of operations at the exit
 *
 * `power` is a power loss: bytes that were not synced are cut off or become zeros, and names whose folder was not synced
 * are gone, each by a coin; then the process is killed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { NONE, KILL, POWER, FULL, IO, READ, SHORT, CLOCK };

#define FDS 65536
#define FILES 8192
#define PATH 1024

static enum kind kind;
static char roots[4][PATH];
static int root_count;
static unsigned long at, lasts;
static _Atomic unsigned long seed, writes_seen, reads_seen;
static _Atomic int struck, told, dead;
static long clock_offset_s;
static const char *mark;
static _Atomic unsigned char ours[FDS];
static char *names[FDS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* What a power loss would take: bytes of files, and names in folders. */
static struct file { dev_t dev; ino_t ino; off_t synced; int dirty; char path[PATH]; } files[FILES];
static int file_count;
static struct entry { dev_t dev; ino_t folder; char path[PATH]; char from[PATH]; } entries[FILES];
static int entry_count;


static unsigned long chance(void) {
    unsigned long x = atomic_fetch_add(&seed, 0x9e3779b97f4a7c15UL) + 0x9e3779b97f4a7c15UL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9UL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebUL;
    return x ^ (x >> 31);
}

static void tell(const char *what, const char *path) {
    char line[2 * PATH];
    if (!mark) return;
    int length = snprintf(line, sizeof line, "%s %s\n", what, path ? path : "");
    int fd = syscall(SYS_openat, AT_FDCWD, mark, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0) return;
    if (syscall(SYS_write, fd, line, length) < 0) { /* nobody to tell */ }
    syscall(SYS_close, fd);
}

__attribute__((constructor)) static void begin(void) {
    const char *value = getenv("TORTURE_KIND");
    const char *kinds[] = {"none", "kill", "power", "full", "io", "read", "short", "clock"};
    for (int i = 0; value && i < 8; i++)
        if (!strcmp(value, kinds[i])) kind = i;
    if ((value = getenv("TORTURE_AT"))) at = strtoul(value, 0, 10);
    if ((value = getenv("TORTURE_FOR"))) lasts = strtoul(value, 0, 10);
    if ((value = getenv("TORTURE_SEED"))) seed = strtoul(value, 0, 10);
    mark = getenv("TORTURE_MARK");
    value = getenv("TORTURE_ROOTS");
    while (value && *value && root_count < 4) {
        size_t length = strcspn(value, ":");
        if (length > 0 && length < PATH) {
            memcpy(roots[root_count], value, length);
            root_count++;
        }
        value += length + (value[length] == ':');
    }
    /* Years, days, hours or seconds, to either side. */
    long spans[] = {400 * 86400, 2 * 86400, 3600, 2};
    clock_offset_s = spans[chance() % 4] * (chance() % 2 ? 1 : -1);
}

__attribute__((destructor)) static void end(void) {
    char text[64];
    snprintf(text, sizeof text, "%lu %lu", writes_seen, reads_seen);
    tell("operations", text);
}

static int below(const char *path) {
    for (int i = 0; path && i < root_count; i++) {
        size_t length = strlen(roots[i]);
        if (!strncmp(path, roots[i], length) && (path[length] == '/' || !path[length])) return 1;
    }
    return 0;
}

static int is_ours(int fd) { return fd >= 0 && fd < FDS && ours[fd]; }

static void wait_if_dead(void) { while (dead) pause(); }

/* Whether the fault is on for this operation. */
static int strikes(_Atomic unsigned long *counter, const char *path) {
    wait_if_dead();
    unsigned long n = atomic_fetch_add(counter, 1) + 1;
    int meant = kind == SHORT || kind == (counter == &reads_seen ? READ : kind == READ ? NONE : kind);
    int on = meant && kind != CLOCK && at && n >= at && (!lasts || n < at + lasts);
    if (on && !atomic_exchange(&struck, 1)) { tell("struck", path); told = 1; }
    return on;
}

static struct file *file_of(int fd, int make) {
    struct stat found;
    if (fstat(fd, &found) || !S_ISREG(found.st_mode)) return 0;
    for (int i = file_count - 1; i >= 0; i--)
        if (files[i].ino == found.st_ino && files[i].dev == found.st_dev) return &files[i];
    if (!make || file_count == FILES) return 0;
    struct file *file = &files[file_count++];
    *file = (struct file){.dev = found.st_dev, .ino = found.st_ino, .synced = found.st_size};
    if (names[fd]) snprintf(file->path, PATH, "%s", names[fd]);
    return file;
}

static void folder_of(const char *path, char *folder) {
    snprintf(folder, PATH, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash) *slash = 0;
}

static void new_name(const char *path, const char *from) {
    struct stat found;
    char folder[PATH];
    folder_of(path, folder);
    if (entry_count == FILES || stat(folder, &found)) return;
    struct entry *entry = &entries[entry_count++];
    *entry = (struct entry){.dev = found.st_dev, .folder = found.st_ino};
    snprintf(entry->path, PATH, "%s", path);
    if (from) snprintf(entry->from, PATH, "%s", from);
}

static void forget_name(const char *path) {
    for (int i = 0; i < entry_count; i++)
        if (!strcmp(entries[i].path, path)) entries[i].path[0] = 0;
}

static void names_synced(dev_t dev, ino_t folder) {
    for (int i = 0; i < entry_count; i++)
        if (entries[i].dev == dev && entries[i].folder == folder) entries[i].path[0] = 0;
}

static void cut_power(void) {
    for (int i = entry_count - 1; i >= 0; i--) {
        struct entry *entry = &entries[i];
        if (!entry->path[0] || chance() % 2) continue;
        if (entry->from[0]) syscall(SYS_renameat2, AT_FDCWD, entry->path, AT_FDCWD, entry->from, 0);
        else syscall(SYS_unlinkat, AT_FDCWD, entry->path, 0);
    }
    for (int i = 0; i < file_count; i++) {
        struct stat found;
        struct file *file = &files[i];
        unsigned long coin = chance() % 4;
        if (!file->dirty || !coin || stat(file->path, &found) || found.st_ino != file->ino) continue;
        off_t lost = found.st_size - file->synced;
        if (lost <= 0) continue;
        if (coin == 1) {
            if (truncate(file->path, file->synced) || truncate(file->path, found.st_size)) continue;
        } else if (truncate(file->path, coin == 2 ? file->synced : file->synced + chance() % lost)) continue;
    }
}

static void die(void) {
    dead = 1;
    if (kind == POWER) cut_power();
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}

static int fails_with(void) { return kind == FULL ? ENOSPC : EIO; }

/* ---- opening and closing ---- */

static int opened(int fd, const char *path, int flags, int existed) {
    if (fd < 0 || fd >= FDS) return fd;
    ours[fd] = 1;
    pthread_mutex_lock(&lock);
    free(names[fd]);
    names[fd] = strdup(path);
    if (kind == POWER && (flags & O_CREAT) && !existed) new_name(path, 0);
    if (kind == POWER && (flags & O_TRUNC)) {
        struct file *file = file_of(fd, 1);
        if (file) { file->synced = 0; file->dirty = 1; }
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

static int open_at(int folder, const char *path, int flags, mode_t mode) {
    if (folder != AT_FDCWD || !below(path)) return syscall(SYS_openat, folder, path, flags, mode);
    struct stat found;
    int existed = !stat(path, &found);
    if (flags & O_CREAT) {
        if (strikes(&writes_seen, path)) {
            if (kind == KILL || kind == POWER) die();
            if (!existed && (kind == FULL || kind == IO)) { errno = fails_with(); return -1; }
        }
    } else if ((flags & O_ACCMODE) == O_RDONLY && existed && S_ISREG(found.st_mode)) {
        if (strikes(&reads_seen, path) && kind == READ) { errno = EIO; return -1; }
    }
    int fd = syscall(SYS_openat, folder, path, flags, mode);
    return opened(fd, path, flags, existed);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        return open_at(AT_FDCWD, path, flags, (flags & (O_CREAT | O_TMPFILE)) ? mode : 0); \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
        return open_at(folder, path, flags, (flags & (O_CREAT | O_TMPFILE)) ? mode : 0); \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    if (is_ours(fd)) ours[fd] = 0;
    return syscall(SYS_close, fd);
}

/* ---- writing ---- */

/* How many of `length` bytes to write: all, a part, or -1 with an error. */
static ssize_t share(int fd, size_t length) {
    if (!is_ours(fd)) return length;
    if (!strikes(&writes_seen, names[fd])) return length;
    switch (kind) {
        case FULL: case IO:
            /* The first failure of a full disk may be half a write. */
            if (length > 1 && chance() % 4 == 0) return 1 + chance() % (length - 1);
            errno = fails_with();
            return -1;
        case SHORT:
            if (chance() % 16 == 0) { errno = EINTR; return -1; }
            return length > 1 && chance() % 2 ? 1 + chance() % (length - 1) : length;
        default: return length;
    }
}

/* Once the mark is written: another thread may end the program at once. */
static int is_last(void) { return told && (kind == KILL || kind == POWER); }

static void wrote(int fd) {
    if (kind != POWER || !is_ours(fd)) return;
    pthread_mutex_lock(&lock);
    struct file *file = file_of(fd, 1);
    if (file) file->dirty = 1;
    pthread_mutex_unlock(&lock);
}

static void will_write(int fd) {
    if (kind != POWER || !is_ours(fd)) return;
    pthread_mutex_lock(&lock);
    file_of(fd, 1); /* its size before is what was synced */
    pthread_mutex_unlock(&lock);
}

#define WRITING(call, length_now) \
    will_write(fd); \
    ssize_t take = share(fd, length); \
    if (take < 0) return -1; \
    if (is_ours(fd) && is_last()) { \
        unsigned long when = chance() % 3; \
        if (when) { size_t length_now = when == 1 ? length : length / 2; call; wrote(fd); } \
        die(); \
    } \
    { size_t length_now = take; ssize_t done = call; if (done > 0) wrote(fd); return done; }

ssize_t write(int fd, const void *bytes, size_t length) {
    WRITING(syscall(SYS_write, fd, bytes, n), n)
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    WRITING(syscall(SYS_pwrite64, fd, bytes, n, offset), n)
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) {
    WRITING(syscall(SYS_pwrite64, fd, bytes, n, offset), n)
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!is_ours(fd) || count < 1) return syscall(SYS_writev, fd, parts, count);
    for (int i = 0; i < count; i++)
        if (parts[i].iov_len) return write(fd, parts[i].iov_base, parts[i].iov_len);
    return 0;
}

static int syncing(int fd, long number) {
    if (!is_ours(fd)) return syscall(number, fd);
    if (strikes(&writes_seen, names[fd])) {
        if (kind == KILL || kind == POWER) die();
        if (kind == FULL || kind == IO) { errno = fails_with(); return -1; }
    }
    int done = syscall(number, fd);
    struct stat found;
    if (!done && kind == POWER && !fstat(fd, &found)) {
        pthread_mutex_lock(&lock);
        struct file *file = file_of(fd, 0);
        if (file) { file->synced = found.st_size; file->dirty = 0; }
        if (S_ISDIR(found.st_mode)) names_synced(found.st_dev, found.st_ino);
        pthread_mutex_unlock(&lock);
    }
    return done;
}
int fsync(int fd) { return syncing(fd, SYS_fsync); }
int fdatasync(int fd) { return syncing(fd, SYS_fdatasync); }

/* ---- names ---- */

static int naming(const char *path) {
    if (!below(path) || !strikes(&writes_seen, path)) return 0;
    if (kind == KILL || kind == POWER) {
        if (chance() % 2) return 2; /* the name is changed, then the process ends */
        die();
    }
    if (kind == FULL || kind == IO) { errno = fails_with(); return -1; }
    return 0;
}

static int renamed(int done, const char *from, const char *to, int existed) {
    if (!done && kind == POWER && below(to)) {
        pthread_mutex_lock(&lock);
        for (int i = 0; i < file_count; i++)
            if (!strcmp(files[i].path, from)) snprintf(files[i].path, PATH, "%s", to);
        forget_name(from);
        if (!existed) new_name(to, from);
        pthread_mutex_unlock(&lock);
    }
    return done;
}

int rename(const char *from, const char *to) {
    struct stat found;
    int existed = kind == POWER && !stat(to, &found);
    int fate = naming(to);
    if (fate < 0) return -1;
    int done = renamed(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0), from, to, existed);
    if (fate == 2) die();
    return done;
}

static int linked(const char *from, const char *to, int flags) {
    int fate = naming(to);
    if (fate < 0) return -1;
    int done = syscall(SYS_linkat, AT_FDCWD, from, AT_FDCWD, to, flags);
    if (!done && kind == POWER && below(to)) {
        pthread_mutex_lock(&lock);
        for (int i = 0; i < file_count; i++)
            if (!strcmp(files[i].path, from)) snprintf(files[i].path, PATH, "%s", to);
        new_name(to, 0);
        pthread_mutex_unlock(&lock);
    }
    if (fate == 2) die();
    return done;
}
int link(const char *from, const char *to) { return linked(from, to, 0); }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    if (a != AT_FDCWD || b != AT_FDCWD) return syscall(SYS_linkat, a, from, b, to, flags);
    return linked(from, to, flags);
}

int unlink(const char *path) {
    int fate = naming(path);
    if (fate < 0) return -1;
    int done = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (!done && kind == POWER) {
        pthread_mutex_lock(&lock);
        forget_name(path);
        pthread_mutex_unlock(&lock);
    }
    if (fate == 2) die();
    return done;
}

int mkdir(const char *path, mode_t mode) {
    struct stat found;
    int fate = below(path) && stat(path, &found) ? naming(path) : 0;
    if (fate < 0) return -1;
    int done = syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (fate == 2) die();
    return done;
}

static int cut(int fd, off_t length) {
    if (is_ours(fd) && strikes(&writes_seen, names[fd])) {
        if (kind == KILL || kind == POWER) die();
        if (kind == FULL || kind == IO) { errno = fails_with(); return -1; }
    }
    return syscall(SYS_ftruncate, fd, length);
}
int ftruncate(int fd, off_t length) { return cut(fd, length); }
int ftruncate64(int fd, off_t length) { return cut(fd, length); }

/* ---- reading ---- */

static ssize_t wanted(int fd, size_t length) {
    if (!is_ours(fd)) return length;
    if (!strikes(&reads_seen, names[fd])) return length;
    if (kind == READ) { errno = EIO; return -1; }
    if (kind == SHORT) {
        if (length > 1 && chance() % 2) return 1 + chance() % (length - 1);
    }
    return length;
}

ssize_t read(int fd, void *bytes, size_t length) {
    ssize_t take = wanted(fd, length);
    return take < 0 ? -1 : syscall(SYS_read, fd, bytes, take);
}
ssize_t pread(int fd, void *bytes, size_t length, off_t offset) {
    ssize_t take = wanted(fd, length);
    return take < 0 ? -1 : syscall(SYS_pread64, fd, bytes, take, offset);
}
ssize_t pread64(int fd, void *bytes, size_t length, off_t offset) {
    ssize_t take = wanted(fd, length);
    return take < 0 ? -1 : syscall(SYS_pread64, fd, bytes, take, offset);
}

/* ---- the clock of the wall ---- */

static long jump(void) {
    if (kind != CLOCK || !at) return 0;
    unsigned long n = writes_seen;
    if (n < at || (lasts && n >= at + lasts)) return 0;
    if (!atomic_exchange(&struck, 1)) tell("struck", "clock");
    return clock_offset_s;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int done = syscall(SYS_clock_gettime, clock, now);
    if (!done && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += jump();
    return done;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int done = syscall(SYS_gettimeofday, now, zone);
    if (!done) now->tv_sec += jump();
    return done;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
