/* A cheap endpoint of a model: answers every POST at once, complete or as a stream of events.
 *
 *   upstream PORT EVENTS GAP_US     EVENTS text events to a stream, GAP_US apart; 0 sends all of them in one piece
 *
 * A request is read up to its content-length; a request with "stream":true in its first or last 512 bytes is
 * answered with events, any other with one JSON object. GET /cpu answers the CPU seconds used so far.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS 8192
#define BUFFER (1 << 20)

typedef struct {
    char *in;
    size_t got, body_at, want;
    int is_stream, left;
    long due_us;
} Connection;

static Connection open_[CONNECTIONS];
static int streaming[CONNECTIONS], streams;
static char *whole, *head, *event_, *tail, *burst;
static size_t whole_size, burst_size, event_size;
static int events, listener, poller;
static long gap_us;

static long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static char *chunk(const char *data) {
    char *made;
    if (asprintf(&made, "%zx\r\n%s\r\n", strlen(data), data) < 0) exit(1);
    return made;
}

static void prepare(void) {
    const char *frame = "\"id\":\"chatcmpl-1\",\"created\":1700000000,\"model\":\"aligned-1\"";
    char *body, *data, *usage;
    if (asprintf(&usage, "\"usage\":{\"prompt_tokens\":12,\"completion_tokens\":%d,\"total_tokens\":%d}", events, events + 12) < 0) exit(1);
    if (asprintf(&body, "{%s,\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\","
                 "\"content\":\"A word or two, as long as an answer to a short question is.\"},\"finish_reason\":\"stop\"}],%s}", frame, usage) < 0) exit(1);
    whole_size = asprintf(&whole, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s", strlen(body), body);
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
    if (asprintf(&data, "data: {%s,\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\"finish_reason\":null}]}\n\n", frame) < 0) exit(1);
    event_ = chunk(data);
    event_size = strlen(event_);
    if (asprintf(&data, "data: {%s,\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"
                 "data: {%s,\"object\":\"chat.completion.chunk\",\"choices\":[],%s}\n\ndata: [DONE]\n\n", frame, frame, usage) < 0) exit(1);
    if (asprintf(&tail, "%s0\r\n\r\n", chunk(data)) < 0) exit(1);
    burst = malloc(strlen(head) + events * event_size + strlen(tail) + 1);
    strcpy(burst, head);
    char *at = burst + strlen(head);
    for (int i = 0; i < events; i++, at += event_size) memcpy(at, event_, event_size);
    strcpy(at, tail);
    burst_size = at + strlen(tail) - burst;
}

static void drop(int fd) {
    Connection *c = &open_[fd];
    if (c->left)
        for (int i = 0; i < streams; i++)
            if (streaming[i] == fd) { streaming[i] = streaming[--streams]; break; }
    free(c->in);
    memset(c, 0, sizeof *c);
    close(fd);
}

static int say(int fd, const char *data, size_t size) {
    while (size) {
        ssize_t sent = write(fd, data, size);
        if (sent < 0) {
            if (errno != EAGAIN) return 0;
            struct timespec pause = {0, 50000};
            nanosleep(&pause, NULL);
            continue;
        }
        data += sent, size -= sent;
    }
    return 1;
}

static int answer(int fd) {
    Connection *c = &open_[fd];
    if (!strncmp(c->in, "GET /cpu", 8)) {
        struct rusage used;
        char response[160], body[32];
        getrusage(RUSAGE_SELF, &used);
        int size = sprintf(body, "%.6f", used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
        return say(fd, response, sprintf(response, "HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s", size, body));
    }
    const char *body = c->in + c->body_at;
    size_t size = c->want - c->body_at, last = size > 512 ? size - 512 : 0;
    int is_stream = memmem(body + last, size - last, "\"stream\":true", 13) || memmem(body, size < 512 ? size : 512, "\"stream\":true", 13)
                 || memmem(body + last, size - last, "\"stream\": true", 14) || memmem(body, size < 512 ? size : 512, "\"stream\": true", 14);
    if (!is_stream) return say(fd, whole, whole_size);
    if (!gap_us) return say(fd, burst, burst_size);
    c->left = events;
    c->due_us = now_us() + gap_us;
    streaming[streams++] = fd;
    return say(fd, head, strlen(head));
}

static int heard(int fd) {
    Connection *c = &open_[fd];
    for (;;) {
        ssize_t got = read(fd, c->in + c->got, BUFFER - 1 - c->got);
        if (got == 0) return 0;
        if (got < 0) return errno == EAGAIN;
        c->got += got;
        c->in[c->got] = 0;
        while (c->got) {
            if (!c->want) {
                char *end = memmem(c->in, c->got, "\r\n\r\n", 4), *length;
                if (!end) break;
                c->body_at = end + 4 - c->in;
                *end = 0;
                length = strcasestr(c->in, "\r\ncontent-length:");
                c->want = c->body_at + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
                *end = '\r';
            }
            if (c->got < c->want) break;
            if (!answer(fd)) return 0;
            memmove(c->in, c->in + c->want, c->got -= c->want);
            c->want = 0;
        }
    }
}

static int pace(void) {
    long now = now_us(), next = now + 1000000;
    for (int i = 0; i < streams; i++) {
        int fd = streaming[i];
        Connection *c = &open_[fd];
        while (c->left && c->due_us <= now) {
            c->left--;
            c->due_us += gap_us;
            int is_last = !c->left;
            if (is_last) streaming[i] = streaming[--streams];
            if (!say(fd, event_, event_size) || (is_last && !say(fd, tail, strlen(tail)))) { drop(fd); is_last = 1; }
            if (is_last) { i--; break; }
        }
        if (c->left && c->due_us < next) next = c->due_us;
    }
    return streams ? (next - now + 999) / 1000 : -1;
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "upstream PORT EVENTS GAP_US\n"), 2;
    events = atoi(argv[2]), gap_us = atol(argv[3]);
    prepare();
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int on = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 4096)) return perror("upstream"), 3;
    poller = epoll_create1(0);
    struct epoll_event interest = {.events = EPOLLIN, .data.fd = listener}, ready_events[512];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &interest);
    for (;;) {
        int ready = epoll_wait(poller, ready_events, 512, pace());
        for (int i = 0; i < ready; i++) {
            int fd = ready_events[i].data.fd;
            if (fd != listener) {
                if (open_[fd].in && !heard(fd)) drop(fd);
                continue;
            }
            while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
                if (fd >= CONNECTIONS) { close(fd); continue; }
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                open_[fd].in = malloc(BUFFER);
                interest.data.fd = fd;
                epoll_ctl(poller, EPOLL_CTL_ADD, fd, &interest);
            }
        }
    }
}
