/* The floor: an epoll loop that answers every request with the same bytes.
 *
 *     floor PORT CONTENT-BYTES
 *
 * What any server pays: the kernel's part of a request, and next to nothing besides. A request ends
 * at CRLF CRLF; nothing in it is looked at. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 256, CONNECTIONS = 1 << 17, PIECE = 16384 };

static char *answer;
static size_t answer_bytes;

/* By descriptor: what is still to be sent, how far CRLF CRLF has been matched, and whether EPOLLOUT
 * is asked for. */
static struct { size_t owed; unsigned char matched, waits; } of[CONNECTIONS];

static void want(int loop, int fd, unsigned events, int how) {
    struct epoll_event event = {.events = events, .data.fd = fd};
    epoll_ctl(loop, how, fd, &event);
}

static int finds_ends(int fd, const char *at, ssize_t length) {
    int ends = 0;
    for (ssize_t i = 0; i < length; i++) {
        if (at[i] == "\r\n\r\n"[of[fd].matched]) of[fd].matched++;
        else of[fd].matched = at[i] == '\r';
        if (of[fd].matched == 4) ends++, of[fd].matched = 0;
    }
    return ends;
}

/* Whether the connection goes on. */
static int send_owed(int loop, int fd) {
    while (of[fd].owed) {
        size_t at = (answer_bytes - of[fd].owed % answer_bytes) % answer_bytes;
        ssize_t sent = send(fd, answer + at, answer_bytes - at, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN) return 0;
        if (sent < 0) {
            if (!of[fd].waits) want(loop, fd, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            of[fd].waits = 1;
            return 1;
        }
        of[fd].owed -= (size_t)sent;
    }
    if (of[fd].waits) want(loop, fd, EPOLLIN, EPOLL_CTL_MOD);
    of[fd].waits = 0;
    return 1;
}

static void serve(int loop, int fd, unsigned events) {
    static char piece[PIECE];
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
        ssize_t got = recv(fd, piece, sizeof piece, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN)) { close(fd); return; }
        if (got > 0) of[fd].owed += (size_t)finds_ends(fd, piece, got) * answer_bytes;
    }
    if (!send_owed(loop, fd)) close(fd);
}

static void accept_all(int loop, int listener) {
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= CONNECTIONS) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        memset(&of[fd], 0, sizeof of[fd]);
        want(loop, fd, EPOLLIN, EPOLL_CTL_ADD);
    }
}

int main(int count, char **words) {
    if (count != 3) return fprintf(stderr, "usage: floor PORT CONTENT-BYTES\n"), 2;
    size_t content = strtoul(words[2], NULL, 10);
    answer = malloc(content + 512);
    if (!answer) return fprintf(stderr, "floor: no memory for %zu bytes\n", content), 1;
    int head = snprintf(answer, 512,
        "HTTP/1.1 200 OK\r\nServer: floor\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n"
        "Content-Type: application/octet-stream\r\nCache-Control: public, max-age=86400\r\n"
        "ETag: \"6920f6c0-400\"\r\nAge: 3\r\nVia: 1.1 floor\r\nCache-Status: floor; hit\r\n"
        "Content-Length: %zu\r\n\r\n", content);
    memset(answer + head, 'x', content);
    answer_bytes = (size_t)head + content;

    int on = 1, loop = epoll_create1(0), listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(words[1])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        return perror("floor"), 1;
    want(loop, listener, EPOLLIN, EPOLL_CTL_ADD);
    for (struct epoll_event events[EVENTS];;) {
        int ready = epoll_wait(loop, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener) accept_all(loop, listener);
            else serve(loop, events[i].data.fd, events[i].events);
        }
    }
}
