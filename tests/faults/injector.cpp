// Counts the calls by which a process changes files under one folder, and makes one of them fail or the process die.
// Loaded before the C library (LD_PRELOAD), so it sees every call of Python and of torch. Nothing in the product knows
// of it. Built and driven by injector.py.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

namespace {

enum Action { COUNT, KILL, FAIL_ONCE, FAIL_FROM };

char folder[4096];
char last_call[4300];
long at, calls;
int action, error_number;
bool armed;

// A function of the C library with the name and the type of `ours`.
template <typename F> F real(const char* name, F) { return reinterpret_cast<F>(dlsym(RTLD_NEXT, name)); }

bool inside(const char* path) { return armed && path && strncmp(path, folder, strlen(folder)) == 0; }

// The path of an open file; empty where there is none.
const char* path_of(int descriptor) {
    static thread_local char path[4096];
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length > 0 ? length : 0] = 0;
    return path;
}

// Counts a call; dies here if it is its turn. Returns whether the call shall fail.
bool counted(const char* call, const char* path) {
    if (!inside(path)) return false;
    calls++;
    bool due = action == FAIL_FROM ? calls >= at : calls == at;
    if (calls <= at) snprintf(last_call, sizeof last_call, "%s %s", call, path + strlen(folder));
    if (action == COUNT || !due) return false;
    if (action == KILL) {
        kill(getpid(), SIGKILL);
        pause();
    }
    errno = error_number;
    return true;
}

}  // namespace

extern "C" {

// From now on the calls that touch files under `where` are counted from 1, and `what` happens in call `number`.
void fault_arm(const char* where, long number, int what, int with_errno) {
    snprintf(folder, sizeof folder, "%s", where);
    last_call[0] = 0;
    at = number, calls = 0, action = what, error_number = with_errno, armed = true;
}

void fault_disarm() { armed = false; }
long fault_calls() { return calls; }
const char* fault_call() { return last_call; }  // the last one up to `number`, and its file within the folder

ssize_t write(int descriptor, const void* content, size_t size) {
    static auto next = real("write", &write);
    if (!armed) return next(descriptor, content, size);
    if (action == KILL && calls + 1 == at && inside(path_of(descriptor))) next(descriptor, content, size / 2);
    return counted("write", path_of(descriptor)) ? -1 : next(descriptor, content, size);
}

int fsync(int descriptor) {
    static auto next = real("fsync", &fsync);
    return armed && counted("fsync", path_of(descriptor)) ? -1 : next(descriptor);
}

int rename(const char* from, const char* to) noexcept {
    static auto next = real("rename", &rename);
    return counted("rename", to) ? -1 : next(from, to);
}

int link(const char* from, const char* to) noexcept {
    static auto next = real("link", &link);
    return counted("link", to) ? -1 : next(from, to);
}

int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) noexcept {
    static auto next = real("linkat", &linkat);
    return counted("link", to) ? -1 : next(from_folder, from, to_folder, to, flags);
}

int mkdir(const char* path, mode_t mode) noexcept {
    static auto next = real("mkdir", &mkdir);
    return counted("mkdir", path) ? -1 : next(path, mode);
}

// A full disk does not prevent this one: it is counted, for kills, but fails only where it alone is told to.
int unlink(const char* path) noexcept {
    static auto next = real("unlink", &unlink);
    return action != FAIL_FROM && counted("unlink", path) ? -1 : next(path);
}

int open64(const char* path, int flags, ...) {
    static auto next = real("open64", &open64);
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
    va_end(arguments);
    return (flags & O_CREAT) && counted("create", path) ? -1 : next(path, flags, mode);
}

}  // extern "C"
