# One image for every role; the command chooses the role. Build: docker build -t paramill .
FROM debian:bookworm-slim AS build
COPY scripts/packages /src/scripts/packages
RUN /src/scripts/packages
COPY . /src
WORKDIR /src
RUN cmake --preset release -DBUILD_TESTING=OFF && cmake --build --preset release \
    && cmake --install build/release --prefix /usr/local --strip

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
        libzmq5 libprotobuf-c1 libopenmpi3 libgomp1 libcyaml1 libjansson4 zlib1g libpng16-16 \
        libmicrohttpd12 libssl3 dataset-fashion-mnist \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /var/lib/paramill --create-home paramill
COPY --from=build /usr/local /usr/local
USER 10001:10001
WORKDIR /var/lib/paramill
ENTRYPOINT ["paramill"]
CMD ["--help"]
