/** The OpenAPI 3.1 document, built from the route table, the error table and the limits, so that it cannot say less than the code. */
import { type ErrorCode, ErrorTable } from '../../base/errors.ts'
import { Limits } from '../../config.ts'
import type { QueryName } from './query.ts'
import { type RequestFieldName, type ResponseFieldName, type Route, routes, type SchemaName } from './route-table.ts'

type Json = Record<string, unknown>

const text = { type: 'string' }
const integer = { type: 'integer', minimum: 0 }
const base64 = { type: 'string', contentEncoding: 'base64' }
const base64url = { type: 'string', contentEncoding: 'base64url' }
const quorum = { oneOf: [{ enum: ['one', 'quorum', 'all'] }, { type: 'integer', minimum: 1 }] }
const duration = { type: 'string', pattern: '^[0-9]{1,15}(ms|s|m|h|d)?$' }
const ref = (name: SchemaName | 'Problem'): Json => ({ $ref: `#/components/schemas/${name}` })

const queryParameters: Readonly<Record<QueryName, { readonly schema: Json; readonly description: string }>> = {
  r: { schema: quorum, description: 'Replicas that must answer a read' },
  w: { schema: quorum, description: 'Replicas that must acknowledge a write' },
  ttl: {
    schema: { oneOf: [duration, { const: 'none' }] },
    description:
      'Time to live: milliseconds or with a unit (30s, 5m, 2h, 7d); none for no expiry whatever the bucket says',
  },
  timeout: { schema: duration, description: `Deadline; the default is ${Limits.timeoutMsDefault} ms` },
  siblings: {
    schema: { enum: ['winner', 'all'] },
    description: 'Where siblings exist: only the deterministic winner, or always the list with status 200',
  },
  sloppy: {
    schema: { enum: ['0', '1'] },
    description: 'Whether other nodes may stand in for replicas that are out of reach; left out: as the bucket says',
  },
  receipt: { schema: { const: '1' }, description: 'Say which nodes answered, as JSON in the field Sunwise-Receipt' },
  key64: {
    schema: { const: '1' },
    description: 'The key in the path is base64url: for . and .. and keys of odd bytes',
  },
  durability: {
    schema: { enum: ['sync', 'interval', 'os'] },
    description: 'When the write is acknowledged: after fdatasync, after write with a regular fdatasync, after write',
  },
  prefix: { schema: text, description: 'Only keys that begin with these percent-encoded bytes' },
  prefix64: { schema: base64url, description: 'The prefix as base64url, instead of prefix' },
  limit: {
    schema: { type: 'integer', minimum: 1, maximum: Limits.listLimitMax },
    description: `Most keys of the answer; a page has ${Limits.listLimitDefault} by default, a stream all`,
  },
  cursor: { schema: base64url, description: 'Where the page before ended' },
  values: { schema: { const: '1' }, description: 'Give values, etags and contexts, too' },
}

const requestFields: Readonly<Record<RequestFieldName, string>> = {
  'Sunwise-Context':
    'Causal context of the last read: the write replaces exactly what was seen, and never fails for it',
  'If-Match': 'The request applies only if the key has one of these etags',
  'If-None-Match': 'A read answers 304 if the key has one of these etags; a write takes only *: if there is no value',
  'Content-Type': 'Of a value: stored with it and given back',
  Prefer: 'return=representation answers a write with the value',
  Accept: 'application/x-ndjson answers in lines',
}

const responseFields: Readonly<Record<ResponseFieldName | 'Sunwise-Request-Id', string>> = {
  ETag: 'Digest of the version set',
  'Sunwise-Context': 'Causal context, opaque base64url; a deleted key has one, too',
  'Sunwise-Siblings': 'Values of the key, where there is more than one',
  'Sunwise-Expires': 'When the value expires, in milliseconds since 1970',
  'Sunwise-Acks': 'Replicas that answered in time, of those that hold the key',
  'Sunwise-Sloppy': '1 where a fallback was counted',
  'Sunwise-Receipt':
    'With receipt=1: acks, replicas, sloppy, durable, epoch, and where there are several replicas the nodes, as JSON',
  'Preference-Applied': 'The preference that was honoured',
  Location: 'Path of the new bucket',
  'Sunwise-Request-Id': 'Id of the request in logs and problems',
}

const object = (properties: Json, required: readonly string[] = []): Json => ({
  type: 'object',
  properties,
  required,
})

const storedMembers = { value: text, value64: base64, contentType: text, expires: integer }
const versionMembers = { etag: text, context: base64url, siblings: integer }
const bucketMembers = {
  n: integer,
  r: quorum,
  w: quorum,
  sloppy: { type: 'boolean' },
  conflict: { enum: ['siblings', 'lww'] },
  durability: { enum: ['sync', 'interval', 'os', null] },
  ttl: { type: ['integer', 'string', 'null'] },
  valueBytesMax: integer,
}
const node = object({
  nodeId: text,
  address: text,
  zone: text,
  weight: { type: 'number' },
  state: { enum: ['joining', 'normal', 'leaving'] },
  isAlive: { type: 'boolean' },
  isVoter: { type: 'boolean' },
  partitions: integer,
  joinedAt: integer,
  replaces: text,
})
const listedKey = object({
  key: text,
  key64: base64url,
  ...versionMembers,
  ...storedMembers,
  values: { type: 'array', items: object(storedMembers) },
})

const schemas: Readonly<Record<SchemaName, Json>> = {
  Siblings: {
    type: 'array',
    items: object({ value64: base64, contentType: text, expires: integer }, ['value64', 'contentType']),
  },
  ListPage: object({ keys: { type: 'array', items: listedKey }, cursor: base64url, complete: { type: 'boolean' } }, [
    'keys',
    'complete',
  ]),
  ListLine: listedKey,
  BatchOperation: object(
    {
      op: { enum: ['get', 'put', 'delete'] },
      key: text,
      key64: base64url,
      value: text,
      value64: base64,
      context: base64url,
      ttl: { type: ['integer', 'string'] },
      contentType: text,
      ifMatch: { oneOf: [text, { type: 'array', items: text }] },
      ifNoneMatch: { const: '*' },
    },
    ['op'],
  ),
  BatchOperations: { type: 'array', items: ref('BatchOperation'), maxItems: Limits.batchOperationsMax },
  BatchResult: object(
    {
      status: integer,
      ...versionMembers,
      ...storedMembers,
      values: { type: 'array', items: object(storedMembers) },
      problem: ref('Problem'),
    },
    ['status'],
  ),
  BatchResults: { type: 'array', items: ref('BatchResult') },
  Bucket: object({ name: text, ...bucketMembers }, ['name', ...Object.keys(bucketMembers)]),
  Cluster: object(
    {
      clusterId: text,
      epoch: integer,
      nodeId: text,
      isAtRest: { type: 'boolean' },
      stage: text,
      movesLeft: integer,
      partitions: integer,
      voters: { type: 'array', items: text },
      members: { type: 'array', items: node },
    },
    ['clusterId', 'epoch', 'nodeId', 'isAtRest', 'voters', 'members'],
  ),
  Nodes: object({ epoch: integer, nodes: { type: 'array', items: node } }, ['epoch', 'nodes']),
  Ring: object({ epoch: integer, partitions: { type: 'array', items: { type: 'object' } } }, ['epoch', 'partitions']),
  Explanation: object({
    epoch: integer,
    bucket: text,
    slot: integer,
    partition: integer,
    stage: text,
    read: { type: 'object' },
    write: { type: 'array', items: { type: 'object' } },
  }),
  NodeChange: object({ nodeId: text }, ['nodeId']),
  NodeRemoval: object({ nodeId: text, force: { type: 'boolean' } }, ['nodeId']),
  Changed: object({ epoch: integer }, ['epoch']),
  Buckets: object({ buckets: { type: 'array', items: ref('Bucket') } }, ['buckets']),
  BucketProperties: { ...object(bucketMembers), additionalProperties: false },
  Health: object(
    { ok: { type: 'boolean' }, reasons: { type: 'array', items: text }, warnings: { type: 'array', items: text } },
    ['ok', 'reasons'],
  ),
  Version: object({ name: text, version: text, api: text, nodeId: text }, ['name', 'version', 'api', 'nodeId']),
  LimitTable: { type: 'object', additionalProperties: integer },
  Text: text,
  Bytes: { description: 'Any bytes' },
  OpenApi: { type: 'object' },
}

const problemSchema = object(
  {
    type: text,
    title: text,
    status: integer,
    code: { enum: Object.keys(ErrorTable) },
    detail: text,
    outcome: {
      enum: ['none', 'partial', 'unknown'],
      description: 'What the failed request did to the data: nothing, some of it, or it is not known',
    },
    retryable: { type: 'boolean', description: 'The same request may succeed later without being changed' },
    requestId: text,
    instance: text,
  },
  ['type', 'title', 'status', 'code', 'detail', 'outcome', 'retryable'],
)

function parametersOf(route: Route): Json[] {
  const parameters: Json[] = []
  for (const match of route.path.matchAll(/\{([a-z]+)\}/g)) {
    const name = match[1]!
    parameters.push({
      name,
      in: 'path',
      required: true,
      description:
        name === 'key'
          ? `1 to ${Limits.keyBytesMax} bytes, percent-encoded; the rest of the path, slashes included`
          : `1 to ${Limits.bucketNameBytesMax} of A-Z a-z 0-9 . _ -`,
      schema: text,
    })
  }
  for (const name of route.query) parameters.push({ name, in: 'query', ...queryParameters[name] })
  for (const name of route.fields) {
    parameters.push({ name, in: 'header', description: requestFields[name], schema: text })
  }
  return parameters
}

function contentOf(content: Readonly<Record<string, SchemaName>>): Json {
  return Object.fromEntries(Object.entries(content).map(([type, schema]) => [type, { schema: ref(schema) }]))
}

function fieldsOf(names: readonly (ResponseFieldName | 'Sunwise-Request-Id')[]): Json {
  return Object.fromEntries(names.map((name) => [name, { description: responseFields[name], schema: text }]))
}

/** Codes that any route may answer with. */
const commonErrors: readonly ErrorCode[] = [
  'BAD_REQUEST',
  'BAD_HOST',
  'METHOD_NOT_ALLOWED',
  'REQUEST_TIMEOUT',
  'HEADERS_TOO_LARGE',
  'INTERNAL',
]

function responsesOf(route: Route): Json {
  const responses: Json = {}
  for (const [status, answer] of Object.entries(route.answers)) {
    const withBody = answer.content !== undefined && route.method !== 'HEAD'
    responses[status] = {
      description: answer.description,
      headers: fieldsOf(['Sunwise-Request-Id', ...(answer.fields ?? [])]),
      ...(withBody ? { content: contentOf(answer.content) } : {}),
    }
  }
  const byStatus = new Map<number, ErrorCode[]>()
  for (const code of new Set([...route.errors, ...commonErrors])) {
    const codes = byStatus.get(ErrorTable[code].status) ?? []
    byStatus.set(ErrorTable[code].status, [...codes, code])
  }
  for (const [status, codes] of [...byStatus].sort(([a], [b]) => a - b)) {
    if (responses[status] !== undefined) continue
    responses[status] = {
      description: codes.map((code) => `${code}: ${ErrorTable[code].title}`).join('; '),
      headers: fieldsOf(['Sunwise-Request-Id']),
      ...(route.method === 'HEAD' ? {} : { content: { 'application/problem+json': { schema: ref('Problem') } } }),
    }
  }
  return responses
}

/** The document for a program of this version, as a plain object. */
export function openApiDocument(version: string): Json {
  const paths: Record<string, Json> = {}
  for (const route of routes as readonly Route[]) {
    const path = paths[route.path] ?? {}
    path[route.method.toLowerCase()] = {
      operationId: route.operationId,
      tags: [route.tag],
      summary: route.summary,
      parameters: parametersOf(route),
      ...(route.body === undefined
        ? {}
        : { requestBody: { required: route.body.required, content: contentOf(route.body.content) } }),
      responses: responsesOf(route),
    }
    paths[route.path] = path
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Sunwise',
      version,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
      description:
        'A key-value store. Values are raw bodies; errors are problem documents (RFC 9457) with a code and an outcome. ' +
        'Every GET serves HEAD, too. Unknown query parameters are refused.',
    },
    paths,
    components: { schemas: { ...schemas, Problem: problemSchema } },
  }
}
