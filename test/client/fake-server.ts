/**
 * A tiny server that speaks enough of the HTTP interface for clients to be tested against, and misbehaves on request. It
 * keeps everything in a map and knows nothing of the product's own server.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { type ErrorCode, ErrorTable } from '../../src/base/errors.ts'

/** A stored value; several under one key are siblings. */
export type FakeValue = { value: Buffer; contentType: string; expires?: number | undefined; etag: string }

/** One request as it came. */
export type FakeRequest = {
  method: string
  path: string
  query: URLSearchParams
  headers: IncomingMessage['headers']
  body: Buffer
}

/** May answer a request itself; returns true if it did (or means to leave it without an answer). */
export type Interceptor = (request: FakeRequest, response: ServerResponse) => boolean | Promise<boolean>

type Row = Readonly<Record<string, unknown>>

/** Percent-decodes to bytes, one character of the result per byte. */
function binaryOf(encoded: string): string {
  return encoded.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
}

function textOrBase64(name: string, bytes: Buffer, encoding: 'base64' | 'base64url'): Row {
  const text = bytes.toString('utf8')
  return Buffer.from(text).equals(bytes) ? { [name]: text } : { [`${name}64`]: bytes.toString(encoding) }
}

/** The server. Keys of its maps are keys in latin1, one character per byte. */
export class FakeServer {
  readonly buckets = new Map<string, Map<string, FakeValue[]>>([['default', new Map()]])
  readonly requests: FakeRequest[] = []
  intercept: Interceptor | undefined
  /** What it says about a cluster: who it is, and the replicas of every partition. */
  cluster: { nodeId: string; epoch: number; partitions: readonly (readonly string[])[] } | undefined
  /** Requests about the server and its cluster; they are in `requests`, too, only if they are about something else. */
  readonly asides: string[] = []
  isReady = true
  /** Largest number of requests that were under way at a time. */
  concurrencyMax = 0
  #concurrency = 0
  /** Numbers its etags; servers of the same values share them. */
  versions = { last: 0 }
  readonly #server: Server = createServer((request, response) => this.#receive(request, response))

  /** Listens on a free loopback port and gives its origin. */
  static async start(): Promise<FakeServer> {
    const fake = new FakeServer()
    await new Promise<void>((resolve) => fake.#server.listen(0, '127.0.0.1', resolve))
    return fake
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  get values(): Map<string, FakeValue[]> {
    return this.buckets.get('default')!
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  /** Answers with a problem document. */
  static problem(
    response: ServerResponse,
    code: ErrorCode,
    extra: Row = {},
    headers: Record<string, string> = {},
  ): ServerResponse {
    const { status } = ErrorTable[code]
    response.writeHead(status, { 'content-type': 'application/problem+json', ...headers })
    return response.end(JSON.stringify(FakeServer.problemOf(code, extra)))
  }

  static problemOf(code: ErrorCode, extra: Row = {}): Row {
    const { status, title, outcome, retryable } = ErrorTable[code]
    return { type: 'about:blank', title, status, code, detail: `fake ${code}`, outcome, retryable, ...extra }
  }

  #receive(request: IncomingMessage, response: ServerResponse): void {
    this.concurrencyMax = Math.max(this.concurrencyMax, ++this.#concurrency)
    response.on('close', () => this.#concurrency--)
    const chunks: Buffer[] = []
    request.on('error', () => {})
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', async () => {
      const target = request.url ?? '/'
      const mark = target.indexOf('?')
      const received: FakeRequest = {
        method: request.method ?? '',
        path: mark === -1 ? target : target.slice(0, mark),
        query: new URLSearchParams(mark === -1 ? '' : target.slice(mark + 1)),
        headers: request.headers,
        body: Buffer.concat(chunks),
      }
      if (/^\/(readyz|v1\/cluster|v1\/ring)$/.test(received.path)) {
        this.#answerAside(received.path, response)
        return
      }
      this.requests.push(received)
      if (this.intercept !== undefined && (await this.intercept(received, response))) return
      this.#answer(received, response)
    })
  }

  #answer(request: FakeRequest, response: ServerResponse): ServerResponse {
    const [, version, route, bucketName, ...rest] = request.path.split('/')
    if (request.path === '/version') return this.#json(response, 200, { version: 'fake' })
    if (version !== 'v1') return FakeServer.problem(response, 'ROUTE_NOT_FOUND')
    if (route === 'buckets') return this.#answerBuckets(request, response, bucketName)
    const bucket = this.buckets.get(decodeURIComponent(bucketName ?? ''))
    if (bucket === undefined) return FakeServer.problem(response, 'BUCKET_NOT_FOUND')
    if (route === 'batch') return this.#answerBatch(request, response, bucket)
    if (route === 'kv' && rest.length === 0) return this.#answerList(request, response, bucket)
    if (route === 'kv') return this.#answerKey(request, response, bucket, binaryOf(rest.join('/')))
    return FakeServer.problem(response, 'ROUTE_NOT_FOUND')
  }

  #answerAside(path: string, response: ServerResponse): ServerResponse {
    this.asides.push(path)
    if (path === '/readyz') return this.#json(response, this.isReady ? 200 : 503, { ok: this.isReady })
    if (this.cluster === undefined) return FakeServer.problem(response, 'CONFLICT')
    const { nodeId, epoch } = this.cluster
    if (path === '/v1/cluster') return this.#json(response, 200, { nodeId, epoch })
    const partitions = this.cluster.partitions.map((replicas, partition) => ({ partition, replicas }))
    return this.#json(response, 200, { epoch, partitions })
  }

  #json(response: ServerResponse, status: number, content: unknown): ServerResponse {
    response.writeHead(status, { 'content-type': 'application/json' })
    return response.end(JSON.stringify(content))
  }

  #answerKey(
    request: FakeRequest,
    response: ServerResponse,
    bucket: Map<string, FakeValue[]>,
    key: string,
  ): ServerResponse {
    const present = bucket.get(key) ?? []
    const etag = present[0]?.etag
    if (request.method === 'GET') {
      if (present.length === 0) return FakeServer.problem(response, 'NOT_FOUND', {}, { 'sunwise-context': 'gone' })
      const headers: Record<string, string> = {
        etag: `"${etag}"`,
        'sunwise-context': `ctx-${etag}`,
        'sunwise-acks': '1/1',
        'sunwise-siblings': String(present.length),
      }
      if (present.length > 1 && request.query.get('siblings') !== 'winner') {
        response.writeHead(300, { ...headers, 'content-type': 'application/json' })
        const list = present.map(({ value, contentType, expires }) => {
          return { value64: value.toString('base64'), contentType, expires }
        })
        return response.end(JSON.stringify(list))
      }
      const { value, contentType, expires } = present[0]!
      if (expires !== undefined) headers['sunwise-expires'] = String(expires)
      response.writeHead(200, { ...headers, 'content-type': contentType })
      return response.end(value)
    }
    const ifMatch = request.headers['if-match']
    if ((ifMatch !== undefined && ifMatch !== `"${etag}"`) || (request.headers['if-none-match'] === '*' && etag)) {
      return FakeServer.problem(response, 'PRECONDITION_FAILED', { etag })
    }
    const headers: Record<string, string> = { 'sunwise-acks': '1/1', 'sunwise-siblings': '1' }
    if (request.method === 'DELETE') bucket.delete(key)
    else {
      const ttl = request.query.get('ttl')
      this.#store(bucket, key, request.body, request.headers['content-type'], ttl === null ? undefined : Number(ttl))
      headers['etag'] = `"${this.versions.last}"`
    }
    response.writeHead(204, headers)
    return response.end()
  }

  #store(bucket: Map<string, FakeValue[]>, key: string, value: Buffer, contentType?: string, ttl?: number): void {
    const expires = ttl === undefined ? undefined : Date.now() + ttl
    const etag = String(++this.versions.last)
    bucket.set(key, [{ value, contentType: contentType ?? 'application/octet-stream', expires, etag }])
  }

  #answerBatch(request: FakeRequest, response: ServerResponse, bucket: Map<string, FakeValue[]>): ServerResponse {
    const operations = JSON.parse(request.body.toString()) as Row[]
    const results = operations.map((row): Row => {
      const key =
        row['key64'] === undefined ? Buffer.from(String(row['key'])) : Buffer.from(String(row['key64']), 'base64url')
      const name = key.toString('latin1')
      if (row['op'] === 'get') {
        const present = bucket.get(name)?.[0]
        if (present === undefined) return { status: 404, problem: FakeServer.problemOf('NOT_FOUND') }
        return { status: 200, etag: present.etag, ...textOrBase64('value', present.value, 'base64') }
      }
      if (row['op'] === 'delete') {
        bucket.delete(name)
        return { status: 204 }
      }
      const value =
        row['value64'] === undefined ? Buffer.from(String(row['value'])) : Buffer.from(String(row['value64']), 'base64')
      this.#store(bucket, name, value, row['contentType'] as string | undefined, row['ttl'] as number | undefined)
      return { status: 204, etag: String(this.versions.last) }
    })
    return this.#json(response, 200, results)
  }

  #answerList(request: FakeRequest, response: ServerResponse, bucket: Map<string, FakeValue[]>): ServerResponse {
    const { query } = request
    const prefix64 = query.get('prefix64')
    const prefix = Buffer.from(
      prefix64 ?? query.get('prefix') ?? '',
      prefix64 === null ? 'utf8' : 'base64url',
    ).toString('latin1')
    const limit = Number(query.get('limit') ?? 1000)
    const after = query.get('cursor') ?? ''
    const all = [...bucket.keys()].filter((key) => key.startsWith(prefix)).sort()
    const rest = all.filter((key) => Buffer.from(key, 'latin1').toString('base64url') > after || after === '')
    const sorted = rest.sort((a, b) =>
      Buffer.from(a, 'latin1').toString('base64url') < Buffer.from(b, 'latin1').toString('base64url') ? -1 : 1,
    )
    const page = sorted.slice(0, limit)
    const keys = page.map((key) => {
      const row = textOrBase64('key', Buffer.from(key, 'latin1'), 'base64url')
      if (query.get('values') !== '1') return row
      const values = bucket.get(key)!
      const shown = values.map(({ value, contentType, expires }) => ({
        ...textOrBase64('value', value, 'base64'),
        contentType,
        expires,
      }))
      return values.length === 1 ? { ...row, etag: values[0]!.etag, ...shown[0] } : { ...row, values: shown }
    })
    const isComplete = page.length === sorted.length
    const cursor = isComplete ? undefined : Buffer.from(page.at(-1)!, 'latin1').toString('base64url')
    return this.#json(response, 200, { keys, cursor, complete: isComplete })
  }

  #answerBuckets(request: FakeRequest, response: ServerResponse, name: string | undefined): ServerResponse {
    if (name === undefined)
      return this.#json(
        response,
        200,
        [...this.buckets.keys()].map((each) => ({ name: each })),
      )
    const isKnown = this.buckets.has(name)
    if (request.method === 'PUT') {
      if (!isKnown) this.buckets.set(name, new Map())
      return this.#json(response, isKnown ? 200 : 201, { name })
    }
    if (!isKnown) return FakeServer.problem(response, 'BUCKET_NOT_FOUND')
    if (request.method === 'DELETE') this.buckets.delete(name)
    if (request.method === 'GET') return this.#json(response, 200, { name })
    response.writeHead(204)
    return response.end()
  }
}
