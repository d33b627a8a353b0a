/*
 * peak COMMAND [ARGUMENT..]: runs the command and writes the most memory it ever held, in KiB, on stderr.
 *
 * In C because it must be small itself: the kernel counts what a process held before it called exec() as well, so a
 * parent of 3 MiB makes every child of 1 MiB look like 3 MiB.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int count, char **arguments)
{
    if (count < 2)
        return 2;
    pid_t child = vfork();
    if (child == 0) {
        execv(arguments[1], arguments + 1);
        _exit(127);
    }
    int status;
    struct rusage used;
    if (child < 0 || wait4(child, &status, 0, &used) < 0)
        return 126;
    dprintf(2, "%ld\n", used.ru_maxrss);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 125;
}
