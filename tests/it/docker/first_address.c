/* Prints the first address that the C library's getaddrinfo gives for a name, so many times; of IPv4, or with "any" of any family. */
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM};

	if (argc < 3)
		return 2;
	if (argc > 3 && !strcmp(argv[3], "any"))
		hints.ai_family = AF_UNSPEC;
	for (int left = atoi(argv[2]); left > 0; left--) {
		struct addrinfo *found;
		char text[64];
		int error = getaddrinfo(argv[1], NULL, &hints, &found);

		if (!error)
			error = getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST);
		if (error) {
			fprintf(stderr, "%s: %s\n", argv[1], gai_strerror(error));
			return 1;
		}
		puts(text);
		freeaddrinfo(found);
	}
	return 0;
}
