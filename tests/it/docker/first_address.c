/* Prints the first IPv4 address that the C library's getaddrinfo gives for a name, so many times. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};

	if (argc != 3)
		return 2;
	for (int left = atoi(argv[2]); left > 0; left--) {
		struct addrinfo *found;
		char text[INET_ADDRSTRLEN];
		int error = getaddrinfo(argv[1], NULL, &hints, &found);

		if (error) {
			fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(error));
			return 1;
		}
		puts(inet_ntop(AF_INET, &((struct sockaddr_in *)found->ai_addr)->sin_addr, text, sizeof text));
		freeaddrinfo(found);
	}
	return 0;
}
