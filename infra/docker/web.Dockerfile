# The page and the proxy in front of the services:
#   docker build -f infra/docker/web.Dockerfile -t fanfare/web .

FROM node:22-slim AS build
WORKDIR /build
COPY services/web/package.json services/web/package-lock.json services/web/.npmrc ./
RUN npm ci --no-audit --no-fund
COPY services/web/ ./
RUN npm run build

FROM caddy:2.11-alpine
COPY infra/proxy/Caddyfile /etc/caddy/Caddyfile
COPY --from=build /build/dist /srv
USER 10001:10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8081/healthz"]
