/**
 * The HTTP server of one thread. Requests for single keys are answered on the raw request (key-routes.ts); everything else is
 * routed by fastify to handlers that share the same parsing and answering code, so an error looks the same whichever way it
 * came: refused by a handler, by fastify, or by Node's parser.
 *
 *     request -> admit: target, Host, Origin
 *                  |-- /v1/kv/{bucket}/{key...}  -> KeyRoutes
 *                  `-- fastify router            -> batch, list, buckets, node; 404, 405
 *     not HTTP, too slow, too large              -> clientError -> the same problem form, connection closed
 *
 * Timeouts and limits are set here, all of them: neither Node's nor fastify's defaults are meant for the open network.
 * What it does not do: authentication and TLS; without them only loopback is bound.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import Fastify, { type FastifyError, type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { assert } from '../../base/assert.ts'
import { type ErrorCode, ErrorTable, SunwiseError } from '../../base/errors.ts'
import { Limits } from '../../config.ts'
import { bindErrorOf, checkBindAddress, HostList } from './address.ts'
import { answerBatch } from './batch-route.ts'
import { answerBucket, answerBucketDelete, answerBucketPut, answerBuckets } from './bucket-routes.ts'
import { answerAbout, answerClusterChange, answerExplain } from './cluster-routes.ts'
import { attachConnection, Connection, connectionOf } from './connection.ts'
import { Exchange } from './exchange.ts'
import { Front, type FrontOptions, type HealthSource } from './front.ts'
import { KeyRoutes, keyPathStart } from './key-routes.ts'
import { answerList } from './list-route.ts'
import {
  answerDocument,
  answerHealth,
  answerMetrics,
  limitsDocument,
  openApiText,
  versionDocument,
} from './node-routes.ts'
import { problemOf, problemType } from './problem.ts'
import { allowedMethods, type OperationId, routes } from './route-table.ts'

/** Header block of a request: target and all fields. An encoded key and a context fit; more is 431 HEADERS_TOO_LARGE. */

/** Timeouts in milliseconds. */
export type HttpTimeouts = {
  /** For the header block to arrive. */
  readonly headersMs: number
  /** For the whole request to arrive. */
  readonly requestMs: number
  /** For the next request on an open connection. */
  readonly keepAliveMs: number
  /** Without a byte either way while the node is not itself the one that is waited for. */
  readonly idleMs: number
  /** How often the first two are checked. */
  readonly checkMs: number
}

export const HttpTimeoutDefaults = {
  headersMs: 10_000,
  requestMs: 120_000,
  keepAliveMs: 65_000,
  idleMs: 30_000,
  checkMs: 2_000,
} as const satisfies HttpTimeouts

export type HttpServerOptions = FrontOptions & {
  readonly health: HealthSource
  /** The text of `/metrics`. */
  readonly metrics: () => string
  readonly version: string
  readonly nodeId: string
  /** Names by which requests may call this node, beside localhost and the bound address. */
  readonly allowedHosts: readonly string[]
  readonly timeouts?: Partial<HttpTimeouts> | undefined
  /** Lets `listen` bind addresses that other machines can reach. */
  readonly insecure?: boolean | undefined
}

export type ListenOptions = {
  readonly host: string
  /** 0: one that the system chooses. */
  readonly port: number
  /** Share the port with other listeners that do the same (SO_REUSEPORT). */
  readonly reusePort?: boolean | undefined
  /** Never share a handle with other workers of a node:cluster. */
  readonly exclusive?: boolean | undefined
}

export type ListenAddress = {
  readonly host: string
  readonly port: number
  /** Whether the port is shared; false where that was asked for and this system cannot: let one worker listen for all. */
  readonly reusePort: boolean
}

/** The code for an error that fastify itself raises. */
function codeOfStatus(status: number | undefined): ErrorCode {
  switch (status) {
    case 400:
      return 'BAD_REQUEST'
    case 404:
      return 'ROUTE_NOT_FOUND'
    case 405:
      return 'METHOD_NOT_ALLOWED'
    case 413:
      return 'REQUEST_TOO_LARGE'
    case 414:
      return 'URI_TOO_LONG'
    case 415:
      return 'UNSUPPORTED_MEDIA_TYPE'
    default:
      return 'INTERNAL'
  }
}

/** What Node's parser ran into, as a code and a sentence. */
function clientFaultOf(error: NodeJS.ErrnoException & { rawPacket?: Buffer }): { code: ErrorCode; detail: string } {
  switch (error.code) {
    case 'HPE_HEADER_OVERFLOW': {
      // The limit covers target and fields together: it was the target if the first line alone is longer than one may be.
      const packet = error.rawPacket
      const lineEnd = packet === undefined ? 0 : packet.indexOf(0x0a)
      const startsRequest = packet !== undefined && /^[A-Z]+ \S/.test(packet.subarray(0, 32).toString('latin1'))
      if (startsRequest && (lineEnd === -1 || lineEnd > Limits.targetCharactersMax)) {
        return {
          code: 'URI_TOO_LONG',
          detail: `The request target is longer than ${Limits.targetCharactersMax} characters`,
        }
      }
      return { code: 'HEADERS_TOO_LARGE', detail: `The request headers are larger than ${Limits.headerBytesMax} bytes` }
    }
    case 'HPE_CHUNK_EXTENSIONS_OVERFLOW':
      return { code: 'REQUEST_TOO_LARGE', detail: 'The chunk extensions are larger than 16384 bytes' }
    case 'ERR_HTTP_REQUEST_TIMEOUT':
      return { code: 'REQUEST_TIMEOUT', detail: 'The request did not arrive in time' }
    default:
      return { code: 'BAD_REQUEST', detail: 'The message is not well-formed HTTP/1.1' }
  }
}

type Handler = (exchange: Exchange) => void

/** The segment after a path start, as it stands in the target. */
function segmentAfter(target: string, start: string): string {
  const questionMark = target.indexOf('?')
  return target.slice(start.length, questionMark === -1 ? target.length : questionMark)
}

/** One HTTP server. Make it with `createHttpServer`. */
export class HttpServer {
  readonly #front: Front
  readonly #options: HttpServerOptions
  readonly #timeouts: HttpTimeouts
  readonly #hosts: HostList
  readonly #keys: KeyRoutes
  readonly #exchanges = new WeakMap<IncomingMessage, Exchange>()
  readonly #fastify: FastifyInstance
  readonly #server: Server
  #router: (request: IncomingMessage, response: ServerResponse) => void = () => {}

  constructor(options: HttpServerOptions) {
    this.#options = options
    this.#front = new Front(options)
    this.#timeouts = { ...HttpTimeoutDefaults, ...options.timeouts }
    this.#hosts = new HostList(options.allowedHosts)
    this.#keys = new KeyRoutes(this.#front)
    this.#server = this.#createNodeServer()
    this.#fastify = this.#createFastify()
  }

  /** Connections open now. */
  get connections(): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.getConnections((error, count) => (error === null ? resolve(count) : reject(error)))
    })
  }

  /**
   * Starts to listen. Rejects with `ADDRESS_IN_USE`, `ADDRESS_REFUSED` or `BAD_CONFIG`.
   */
  async listen(options: ListenOptions): Promise<ListenAddress> {
    checkBindAddress(options.host, this.#options.insecure === true)
    await this.#fastify.ready()
    try {
      return await this.#bind(options, options.reusePort === true)
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code
      const cannotShare = code === 'ENOTSUP' || code === 'ENOSYS' || code === 'EOPNOTSUPP' || code === 'ENOPROTOOPT'
      if (options.reusePort === true && cannotShare) return await this.listen({ ...options, reusePort: false })
      throw bindErrorOf(options.host, options.port, error as NodeJS.ErrnoException)
    }
  }

  /**
   * Stops without breaking off what is in flight: `/readyz` turns 503, answers close their connections, idle connections are
   * closed, no new ones are taken. After `graceMs` what is left is cut.
   */
  async drain(graceMs: number): Promise<void> {
    this.#front.draining = true
    const server = this.#server
    if (server.listening) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(() => server.closeAllConnections(), graceMs)
        server.close(() => {
          clearTimeout(timer)
          resolve()
        })
        server.closeIdleConnections()
      })
    }
    await this.#fastify.close()
  }

  #bind(options: ListenOptions, reusePort: boolean): Promise<ListenAddress> {
    const server = this.#server
    return new Promise((resolve, reject) => {
      const onError = (error: Error): void => reject(error)
      server.once('error', onError)
      const { host, port, exclusive = false } = options
      server.listen({ host, port, exclusive, reusePort }, () => {
        server.removeListener('error', onError)
        // Errors of a listening server (running out of descriptors, for one) concern single connections.
        server.on('error', (error) => this.#front.logger?.error('The HTTP listener reported an error', { error }))
        const address = server.address()
        const bound = typeof address === 'object' && address !== null ? address : { address: host, port }
        this.#hosts.addBound(bound.address)
        this.#hosts.addBound(host)
        resolve({ host: bound.address, port: bound.port, reusePort })
      })
    })
  }

  #createNodeServer(): Server {
    const { headersMs, requestMs, keepAliveMs, idleMs, checkMs } = this.#timeouts
    const server = createServer({
      headersTimeout: headersMs,
      requestTimeout: requestMs,
      keepAliveTimeout: keepAliveMs,
      connectionsCheckingInterval: checkMs,
      maxHeaderSize: Limits.headerBytesMax,
      insecureHTTPParser: false,
      // Checked by `#admit`, which answers with a problem.
      requireHostHeader: false,
      optimizeEmptyRequests: true,
    })
    server.maxConnections = this.#front.limits.connectionsMax
    server.maxRequestsPerSocket = 0
    server.setTimeout(idleMs, (socket) => this.#onIdle(socket))
    const onRequest = (request: IncomingMessage, response: ServerResponse): void => this.#onRequest(request, response)
    server.on('request', onRequest)
    // The body is asked for where it is read, so that a request refused by its headers never sends it.
    server.on('checkContinue', onRequest)
    server.on('checkExpectation', onRequest)
    server.on('clientError', (error, socket) => this.#onClientError(error, socket as Socket))
    server.on('connection', (socket: Socket) => this.#onConnection(socket))
    server.on('drop', () => this.#front.counters.connectionDropped())
    server.on('connect', (_request, socket) => {
      socket.on('error', () => {})
      this.#refuseRaw(socket as Socket, 'METHOD_NOT_ALLOWED', 'This server is no proxy')
    })
    return server
  }

  #onConnection(socket: Socket): void {
    this.#front.counters.connectionOpened()
    const connection = new Connection(socket, (exchange) => this.#start(exchange))
    attachConnection(connection)
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#front.counters.connectionClosed()
      connection.close()
    })
  }

  /** Nothing moved for a while: cut, unless the peer waits for us. */
  #onIdle(socket: Socket): void {
    const { unanswered = 0, latest } = connectionOf(socket) ?? {}
    const bodyAwaited = latest?.hasBody === true && !latest.request.complete
    // The coordinator has its own deadline, which is at most `Limits.timeoutMsMax`.
    if (unanswered > 0 && !bodyAwaited && socket.writableLength === 0) socket.setTimeout(this.#timeouts.idleMs)
    else socket.destroy()
  }

  #onRequest(request: IncomingMessage, response: ServerResponse): void {
    const connection = connectionOf(request.socket)
    assert(connection !== undefined, 'A request comes over a connection that was attached')
    const exchange = new Exchange(this.#front, connection, request, response)
    if (!connection.arrive(exchange)) {
      exchange.failWith('OVERLOADED', 'Too many pipelined requests wait for the ones before them', 'none')
    }
  }

  #start(exchange: Exchange): void {
    try {
      this.#admit(exchange)
      const { request, response, target } = exchange
      if (target.startsWith(keyPathStart)) {
        const questionMark = target.indexOf('?')
        const slash = target.indexOf('/', keyPathStart.length)
        if (slash !== -1 && (questionMark === -1 || slash < questionMark)) {
          this.#keys.handle(exchange, slash, questionMark)
          return
        }
      }
      this.#exchanges.set(request, exchange)
      this.#router(request, response)
    } catch (thrown) {
      exchange.crash(thrown)
    }
  }

  /** @throws SunwiseError where the request may not go on, whatever it asks for */
  #admit(exchange: Exchange): void {
    const { fields, target } = exchange
    if (target.length > Limits.targetCharactersMax) {
      throw new SunwiseError(
        'URI_TOO_LONG',
        `The request target is longer than ${Limits.targetCharactersMax} characters`,
      )
    }
    if (!target.startsWith('/')) {
      throw new SunwiseError('BAD_REQUEST', 'The request target is not a path; this server is no proxy')
    }
    if (fields.repeated !== undefined) {
      throw new SunwiseError('BAD_REQUEST', `The header field ${fields.repeated} is given twice`)
    }
    if (!this.#hosts.allows(fields.host)) {
      throw new SunwiseError(
        'BAD_HOST',
        'The Host header is missing or not a name of this node; add it to the allowed hosts',
      )
    }
    const { method } = exchange
    if (fields.origin !== undefined && method !== 'GET' && method !== 'HEAD') {
      const { origin, host } = fields
      if (origin !== `http://${host}` && origin !== `https://${host}`) {
        throw new SunwiseError('ORIGIN_REFUSED', 'A web page of another origin may not change data here')
      }
    }
    if (fields.expect !== undefined && fields.expect.toLowerCase() !== '100-continue') {
      throw new SunwiseError('BAD_REQUEST', 'The only expectation that this server meets is 100-continue')
    }
  }

  #handlers(): Record<OperationId, Handler> {
    const front = this.#front
    const { health, metrics, version, nodeId } = this.#options
    const versionText = versionDocument(version, nodeId)
    const limitsText = limitsDocument(front)
    const openApi = openApiText(version)
    const key: Handler = (exchange) => {
      // Single keys never get here: their targets are recognised before routing.
      exchange.failWith('ROUTE_NOT_FOUND', 'There is no such route')
    }
    return {
      getKey: key,
      headKey: key,
      putKey: key,
      deleteKey: key,
      listKeys: (exchange) => answerList(front, exchange, segmentAfter(exchange.target, keyPathStart)),
      batch: (exchange) => answerBatch(front, exchange, segmentAfter(exchange.target, '/v1/batch/')),
      listBuckets: (exchange) => answerBuckets(front, exchange),
      getBucket: (exchange) => answerBucket(front, exchange, segmentAfter(exchange.target, '/v1/buckets/')),
      putBucket: (exchange) => answerBucketPut(front, exchange, segmentAfter(exchange.target, '/v1/buckets/')),
      deleteBucket: (exchange) => answerBucketDelete(front, exchange, segmentAfter(exchange.target, '/v1/buckets/')),
      getCluster: (exchange) => answerAbout(front, exchange, 'cluster'),
      getNodes: (exchange) => answerAbout(front, exchange, 'nodes'),
      getRing: (exchange) => answerAbout(front, exchange, 'ring'),
      explainKey: (exchange) => answerExplain(front, exchange),
      leaveCluster: (exchange) => answerClusterChange(front, exchange, 'leave'),
      removeFromCluster: (exchange) => answerClusterChange(front, exchange, 'remove'),
      getLiveness: (exchange) => answerHealth(exchange, health.liveProblems()),
      getReadiness: (exchange) =>
        answerHealth(
          exchange,
          front.draining ? ['The node is stopping', ...health.readyProblems()] : health.readyProblems(),
          health.readyWarnings?.(),
        ),
      getMetrics: (exchange) => answerMetrics(exchange, metrics()),
      getVersion: (exchange) => answerDocument(exchange, versionText),
      getLimits: (exchange) => answerDocument(exchange, limitsText),
      getOpenApi: (exchange) => answerDocument(exchange, openApi),
    }
  }

  #createFastify(): FastifyInstance {
    const fastify = Fastify({
      serverFactory: (router) => {
        this.#router = router
        return this.#server
      },
      logger: false,
      return503OnClosing: false,
      exposeHeadRoutes: true,
      // Bodies are read, bounded and parsed by our own code; timeouts are set on the server that we made.
      bodyLimit: Limits.batchBytesMax,
      requestTimeout: this.#timeouts.requestMs,
      keepAliveTimeout: this.#timeouts.keepAliveMs,
      connectionTimeout: this.#timeouts.idleMs,
      maxRequestsPerSocket: 0,
      clientErrorHandler: () => {},
      routerOptions: {
        maxParamLength: Limits.targetCharactersMax,
        caseSensitive: true,
        ignoreTrailingSlash: false,
        querystringParser: () => ({}),
      },
      frameworkErrors: (error, request, reply) => this.#onFastifyError(error, request, reply),
    })
    fastify.removeAllContentTypeParsers()
    fastify.addContentTypeParser('*', (_request, _payload, done) => done(null))
    fastify.setErrorHandler((error: FastifyError, request, reply) => this.#onFastifyError(error, request, reply))
    fastify.setNotFoundHandler((request, reply) => {
      const exchange = this.#exchangeOf(request, reply)
      const questionMark = exchange.target.indexOf('?')
      const path = questionMark === -1 ? exchange.target : exchange.target.slice(0, questionMark)
      const allowed = allowedMethods(path)
      if (allowed === undefined) exchange.failWith('ROUTE_NOT_FOUND', 'There is no such route')
      else {
        const detail = `The route takes ${allowed}`
        exchange.failWith('METHOD_NOT_ALLOWED', detail, undefined, undefined, ['Allow', allowed])
      }
    })
    const handlers = this.#handlers()
    for (const route of routes) {
      if (route.path.startsWith(keyPathStart) && route.path.endsWith('{key}')) continue
      const handler = handlers[route.operationId]
      const url = route.path.replace('{bucket}', ':bucket').replace('{key}', '*')
      fastify.route({
        method: route.method,
        url,
        handler: (request, reply) => {
          const exchange = this.#exchangeOf(request, reply)
          try {
            handler(exchange)
          } catch (thrown) {
            exchange.crash(thrown)
          }
        },
      })
    }
    return fastify
  }

  /** Takes the answer out of fastify's hands. */
  #exchangeOf(request: FastifyRequest, reply: FastifyReply): Exchange {
    reply.hijack()
    const exchange = this.#exchanges.get(request.raw)
    assert(exchange !== undefined, 'The router only gets requests that have an exchange')
    return exchange
  }

  #onFastifyError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
    const exchange = this.#exchangeOf(request, reply)
    if (exchange.begun) return
    const code = codeOfStatus(error.statusCode)
    if (code === 'INTERNAL') exchange.crash(error)
    else
      exchange.failWith(
        code,
        error.code === 'FST_ERR_BAD_URL' ? 'The path is not well encoded' : ErrorTable[code].title,
      )
  }

  /** Answers what Node's parser refused, and closes: where a message went wrong, the next one's start is not known. */
  #onClientError(error: NodeJS.ErrnoException & { rawPacket?: Buffer }, socket: Socket): void {
    const connection = connectionOf(socket)
    if (connection?.lingering === true && error.code !== 'ECONNRESET') return
    if (error.code === 'ECONNRESET' || error.code === 'EPIPE' || !socket.writable) {
      socket.destroy()
      return
    }
    this.#front.counters.clientError()
    const { code, detail } = clientFaultOf(error)
    const { unanswered = 0, latest } = connection ?? {}
    if (unanswered === 0) {
      this.#refuseRaw(socket, code, detail)
      return
    }
    // The fault is in the body of the request that is still arriving: it is that request's answer. With others before it
    // unanswered, an answer now would be taken for theirs, so there is none.
    const arriving = latest?.hasBody === true && !latest.begun && !latest.bodyTaken
    if (unanswered === 1 && arriving) {
      latest.abandon()
      this.#refuseRaw(socket, code, detail, latest.requestId)
    } else socket.destroy()
  }

  #refuseRaw(socket: Socket, code: ErrorCode, detail: string, requestId = this.#front.nextRequestId()): void {
    const { status } = ErrorTable[code]
    this.#front.counters.problem(code)
    const body = JSON.stringify(problemOf({ code, detail, requestId }))
    const head = [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      `Content-Type: ${problemType}`,
      `Content-Length: ${Buffer.byteLength(body)}`,
      `Sunwise-Request-Id: ${requestId}`,
      'Connection: close',
    ]
    // As with a refused body: closing while the peer still sends would make the kernel throw this answer away.
    const connection = connectionOf(socket)
    if (connection !== undefined) connection.lingering = true
    socket.end(`${head.join('\r\n')}\r\n\r\n${body}`)
    socket.on('end', () => socket.destroy())
    setTimeout(() => socket.destroy(), Limits.lingerMs).unref()
  }
}

/** Makes a server; `listen` starts it. */
export function createHttpServer(options: HttpServerOptions): HttpServer {
  return new HttpServer(options)
}
