/* The floor of the benchmark: a plain send(2) loop, what the kernel asks for a broadcast and nothing else.
 *
 * Speaks as much HTTP as the load generator needs. GET: answers the WebSocket handshake of the one key that the
 * generator uses, and keeps the socket. POST: frames the body once and sends it to every socket kept, in a loop.
 * usage: floor PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_FD = 20000, MAX_REQUEST = 16384, MAX_EVENTS = 256 };

static const char UPGRADED[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\n\r\n"; /* of the key "AAAAAAAAAAAAAAAAAAAAAA==" */
static const char ACCEPTED[] = "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n";

static int listeners[MAX_FD], listener_count;
static char *unfinished[MAX_FD]; /* what has come of a request that is not complete */
static size_t unfinished_size[MAX_FD];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void send_all(int fd, const void *data, size_t size) {
    /* A full socket would make the run void: nobody here reads slower than we write. */
    if (send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size) die("send");
}

static void broadcast(const char *body, size_t size) {
    uint8_t frame[MAX_REQUEST + 4];
    size_t head = 2;
    frame[0] = 0x81; /* FIN, text: RFC 6455 section 5.2 */
    if (size < 126) {
        frame[1] = (uint8_t)size;
    } else {
        frame[1] = 126, frame[2] = (uint8_t)(size >> 8), frame[3] = (uint8_t)size;
        head = 4;
    }
    memcpy(frame + head, body, size);
    for (int i = 0; i < listener_count; i++) send_all(listeners[i], frame, head + size);
}

static void forget(int fd) {
    free(unfinished[fd]);
    unfinished[fd] = NULL, unfinished_size[fd] = 0;
}

/* Carry out a request if it is complete. */
static void serve(int fd) {
    char *request = unfinished[fd];
    char *end = memmem(request, unfinished_size[fd], "\r\n\r\n", 4);
    if (!end) return;
    if (memcmp(request, "GET", 3) == 0) {
        send_all(fd, UPGRADED, sizeof UPGRADED - 1);
        listeners[listener_count++] = fd;
        forget(fd);
        return;
    }
    *end = 0;
    const char *length = strcasestr(request, "content-length:");
    size_t body_size = length ? strtoul(length + 15, NULL, 10) : 0;
    *end = '\r';
    if (unfinished_size[fd] - (size_t)(end + 4 - request) < body_size) return;
    broadcast(end + 4, body_size);
    send_all(fd, ACCEPTED, sizeof ACCEPTED - 1);
    forget(fd);
}

/* Read what a socket has; a peer that hung up is only closed: the run ends with its clients. */
static void take(int fd) {
    if (!unfinished[fd]) unfinished[fd] = malloc(MAX_REQUEST + 1);
    ssize_t got = recv(fd, unfinished[fd] + unfinished_size[fd], MAX_REQUEST - unfinished_size[fd], 0);
    if (got <= 0) {
        forget(fd);
        close(fd);
        return;
    }
    unfinished_size[fd] += (size_t)got;
    serve(fd);
}

static int listen_on(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 1024)) die("listen");
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 2) return fputs("usage: floor PORT\n", stderr), 2;
    int door = listen_on(atoi(argv[1])), set = epoll_create1(0);
    struct epoll_event events[MAX_EVENTS], interest = {.events = EPOLLIN, .data.fd = door};
    epoll_ctl(set, EPOLL_CTL_ADD, door, &interest);
    for (;;) {
        int count = epoll_wait(set, events, MAX_EVENTS, -1);
        if (count < 0 && errno != EINTR) die("epoll_wait");
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd != door) {
                take(events[i].data.fd);
                continue;
            }
            interest.data.fd = accept(door, NULL, NULL);
            if (interest.data.fd < 0 || interest.data.fd >= MAX_FD) die("accept");
            epoll_ctl(set, EPOLL_CTL_ADD, interest.data.fd, &interest);
        }
    }
}
