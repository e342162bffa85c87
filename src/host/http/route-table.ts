/**
 * The one table of HTTP routes: what the server registers, which query parameters each route takes, and what the OpenAPI
 * document says. A row without a handler does not compile, and a route that is not in the table does not exist.
 */
import type { ErrorCode } from '../../base/errors.ts'
import type { QueryName } from './query.ts'

/** Request header fields that a route reads, beside those that all do. */
export type RequestFieldName = 'Sunwise-Context' | 'If-Match' | 'If-None-Match' | 'Content-Type' | 'Prefer' | 'Accept'

/** Response header fields that an answer may have, beside Sunwise-Request-Id. */
export type ResponseFieldName =
  | 'ETag'
  | 'Sunwise-Context'
  | 'Sunwise-Siblings'
  | 'Sunwise-Expires'
  | 'Sunwise-Acks'
  | 'Sunwise-Sloppy'
  | 'Sunwise-Receipt'
  | 'Preference-Applied'
  | 'Location'

/** Names of the schemas of the OpenAPI document. */
export type SchemaName =
  | 'Siblings'
  | 'ListPage'
  | 'ListLine'
  | 'BatchOperations'
  | 'BatchOperation'
  | 'BatchResults'
  | 'BatchResult'
  | 'Bucket'
  | 'Cluster'
  | 'Nodes'
  | 'Ring'
  | 'Explanation'
  | 'NodeChange'
  | 'NodeRemoval'
  | 'Changed'
  | 'Buckets'
  | 'BucketProperties'
  | 'Health'
  | 'Version'
  | 'LimitTable'
  | 'Text'
  | 'Bytes'
  | 'OpenApi'

export type RouteAnswer = {
  readonly description: string
  readonly fields?: readonly ResponseFieldName[]
  /** Media types and their schemas; none for an answer without a body. */
  readonly content?: Readonly<Record<string, SchemaName>>
}

export type Route = {
  readonly operationId: string
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'DELETE' | 'POST'
  /** As OpenAPI writes it. `{key}` stands for the rest of the path, slashes included. */
  readonly path: string
  readonly tag: 'keys' | 'buckets' | 'cluster' | 'node'
  readonly summary: string
  readonly query: readonly QueryName[]
  readonly fields: readonly RequestFieldName[]
  readonly body?: { readonly required: boolean; readonly content: Readonly<Record<string, SchemaName>> }
  readonly answers: Readonly<Record<number, RouteAnswer>>
  /** Error codes that this route gives, beside those that all may. */
  readonly errors: readonly ErrorCode[]
}

const readErrors = [
  'BAD_REQUEST',
  'BAD_KEY',
  'BAD_BUCKET',
  'BAD_QUORUM',
  'BAD_TIMEOUT',
  'BUCKET_NOT_FOUND',
  'URI_TOO_LONG',
  'OVERLOADED',
  'SHARD_UNAVAILABLE',
  'QUORUM_NOT_MET',
  'TIMEOUT',
] as const satisfies readonly ErrorCode[]

const writeErrors = [
  ...readErrors,
  'BAD_CONTEXT',
  'PRECONDITION_FAILED',
  'TOO_MANY_SIBLINGS',
  'VERSION_SET_TOO_LARGE',
  'STORE_FULL',
  'DISK_FULL',
  'DISK_FAILED',
  'CLOCK_UNSURE',
  'ORIGIN_REFUSED',
] as const satisfies readonly ErrorCode[]

const versionFields = [
  'ETag',
  'Sunwise-Context',
  'Sunwise-Siblings',
  'Sunwise-Acks',
  'Sunwise-Sloppy',
  'Sunwise-Receipt',
] as const
const readFields = [...versionFields, 'Sunwise-Expires'] as const

const readAnswers = {
  200: { description: 'The value', fields: readFields, content: { '*/*': 'Bytes' } },
  300: {
    description: 'The key has siblings: all their values, the deterministic winner first',
    fields: readFields,
    content: { 'application/json': 'Siblings' },
  },
  304: { description: 'The key still has a version of If-None-Match', fields: versionFields },
} as const satisfies Route['answers']

export const getKeyRoute = {
  operationId: 'getKey',
  method: 'GET',
  path: '/v1/kv/{bucket}/{key}',
  tag: 'keys',
  summary: 'Read a value',
  query: ['r', 'timeout', 'siblings', 'key64', 'receipt'],
  fields: ['If-Match', 'If-None-Match'],
  answers: readAnswers,
  errors: [...readErrors, 'NOT_FOUND', 'PRECONDITION_FAILED'],
} as const satisfies Route

export const headKeyRoute = {
  ...getKeyRoute,
  operationId: 'headKey',
  method: 'HEAD',
  summary: 'Read the headers of a value',
} as const satisfies Route

export const putKeyRoute = {
  operationId: 'putKey',
  method: 'PUT',
  path: '/v1/kv/{bucket}/{key}',
  tag: 'keys',
  summary: 'Write a value: the body as it is',
  query: ['w', 'sloppy', 'ttl', 'timeout', 'durability', 'key64', 'receipt'],
  fields: ['Sunwise-Context', 'If-Match', 'If-None-Match', 'Content-Type', 'Prefer'],
  body: { required: false, content: { '*/*': 'Bytes' } },
  answers: {
    200: {
      description: 'Written; the value as asked for with Prefer: return=representation',
      fields: [...readFields, 'Preference-Applied'],
      content: { '*/*': 'Bytes' },
    },
    204: { description: 'Written', fields: readFields },
  },
  errors: [...writeErrors, 'BAD_TTL', 'VALUE_TOO_LARGE', 'UNSUPPORTED_MEDIA_TYPE'],
} as const satisfies Route

export const deleteKeyRoute = {
  operationId: 'deleteKey',
  method: 'DELETE',
  path: '/v1/kv/{bucket}/{key}',
  tag: 'keys',
  summary: 'Delete a value; deleting nothing succeeds',
  query: ['w', 'sloppy', 'timeout', 'durability', 'key64', 'receipt'],
  fields: ['Sunwise-Context', 'If-Match', 'If-None-Match'],
  answers: { 204: { description: 'Deleted, or there was nothing', fields: versionFields } },
  errors: writeErrors,
} as const satisfies Route

export const listRoute = {
  operationId: 'listKeys',
  method: 'GET',
  path: '/v1/kv/{bucket}',
  tag: 'keys',
  summary: 'List keys in the order (partition, key): a page, or the whole bucket as lines',
  query: ['prefix', 'prefix64', 'limit', 'cursor', 'values', 'r', 'timeout'],
  fields: ['Accept'],
  answers: {
    200: {
      description: 'A page of keys, or one line per key; a stream that breaks off ends with a line {"problem":...}',
      fields: ['Sunwise-Acks'],
      content: { 'application/json': 'ListPage', 'application/x-ndjson': 'ListLine' },
    },
  },
  errors: [...readErrors, 'BAD_CURSOR'],
} as const satisfies Route

export const batchRoute = {
  operationId: 'batch',
  method: 'POST',
  path: '/v1/batch/{bucket}',
  tag: 'keys',
  summary: 'Apply up to 1000 operations, not atomically; results in request order',
  query: ['timeout'],
  fields: ['Content-Type', 'Accept'],
  body: {
    required: true,
    content: { 'application/json': 'BatchOperations', 'application/x-ndjson': 'BatchOperation' },
  },
  answers: {
    200: {
      description: 'One result per operation, each with its own status',
      content: { 'application/json': 'BatchResults', 'application/x-ndjson': 'BatchResult' },
    },
  },
  errors: [...writeErrors, 'REQUEST_TOO_LARGE', 'UNSUPPORTED_MEDIA_TYPE', 'BAD_TTL', 'RESPONSE_LIMIT', 'UNPROCESSABLE'],
} as const satisfies Route

const health = {
  200: { description: 'Well', content: { 'application/json': 'Health' } },
  503: { description: 'Not well, with the reasons', content: { 'application/json': 'Health' } },
} as const satisfies Route['answers']

/** A route of the node that takes nothing and answers with one document. */
function plainRoute<Id extends string>(operationId: Id, path: string, summary: string, answers: Route['answers']) {
  return { operationId, method: 'GET', path, tag: 'node', summary, query: [], fields: [], answers, errors: [] } as const
}

const clusterErrors = ['CONFLICT', 'NOT_READY', 'OVERLOADED', 'TIMEOUT'] as const satisfies readonly ErrorCode[]
const changeErrors = [
  ...clusterErrors,
  'BAD_REQUEST',
  'UNPROCESSABLE',
  'UNSUPPORTED_MEDIA_TYPE',
  'REQUEST_TOO_LARGE',
  'ORIGIN_REFUSED',
] as const satisfies readonly ErrorCode[]

/** A route of a member of a cluster that takes nothing. */
function clusterRoute<Id extends string>(operationId: Id, path: string, summary: string, schema: SchemaName) {
  const answers = { 200: { description: 'As this node knows it', content: { 'application/json': schema } } }
  const errors: readonly ErrorCode[] = clusterErrors
  return { operationId, method: 'GET', path, tag: 'cluster', summary, query: [], fields: [], answers, errors } as const
}

/** Every route. Each GET but that of a key serves HEAD, too. */
export const routes = [
  getKeyRoute,
  headKeyRoute,
  putKeyRoute,
  deleteKeyRoute,
  listRoute,
  batchRoute,
  {
    operationId: 'listBuckets',
    method: 'GET',
    path: '/v1/buckets',
    tag: 'buckets',
    summary: 'List buckets and their properties',
    query: [],
    fields: [],
    answers: { 200: { description: 'All buckets', content: { 'application/json': 'Buckets' } } },
    errors: [],
  },
  {
    operationId: 'getBucket',
    method: 'GET',
    path: '/v1/buckets/{bucket}',
    tag: 'buckets',
    summary: 'Read the properties of a bucket',
    query: [],
    fields: [],
    answers: { 200: { description: 'The bucket', content: { 'application/json': 'Bucket' } } },
    errors: ['BAD_BUCKET', 'BUCKET_NOT_FOUND'],
  },
  {
    operationId: 'putBucket',
    method: 'PUT',
    path: '/v1/buckets/{bucket}',
    tag: 'buckets',
    summary: 'Create a bucket or change its properties; n and conflict cannot change',
    query: [],
    fields: ['Content-Type'],
    body: { required: false, content: { 'application/json': 'BucketProperties' } },
    answers: {
      200: { description: 'Changed', content: { 'application/json': 'Bucket' } },
      201: { description: 'Created', fields: ['Location'], content: { 'application/json': 'Bucket' } },
    },
    errors: [
      'BAD_REQUEST',
      'BAD_BUCKET',
      'BAD_TTL',
      'CONFLICT',
      'TOO_MANY_BUCKETS',
      'UNPROCESSABLE',
      'UNSUPPORTED_MEDIA_TYPE',
      'REQUEST_TOO_LARGE',
      'ORIGIN_REFUSED',
    ],
  },
  {
    operationId: 'deleteBucket',
    method: 'DELETE',
    path: '/v1/buckets/{bucket}',
    tag: 'buckets',
    summary: 'Delete a bucket and all its keys at once',
    query: [],
    fields: [],
    answers: { 204: { description: 'Deleted' } },
    errors: ['BAD_BUCKET', 'BUCKET_NOT_FOUND', 'CONFLICT', 'ORIGIN_REFUSED'],
  },
  clusterRoute('getCluster', '/v1/cluster', 'Members, voters, epoch, and whether data moves', 'Cluster'),
  clusterRoute('getNodes', '/v1/nodes', 'The nodes of the cluster, and who of them answers', 'Nodes'),
  clusterRoute('getRing', '/v1/ring', 'The replicas of every partition', 'Ring'),
  {
    operationId: 'explainKey',
    method: 'GET',
    path: '/v1/explain/{bucket}/{key}',
    tag: 'cluster',
    summary: 'Where a key lies, and whom a read and a write of it need',
    query: ['key64'],
    fields: [],
    answers: { 200: { description: 'The place of the key', content: { 'application/json': 'Explanation' } } },
    errors: [...clusterErrors, 'BAD_KEY', 'BAD_BUCKET', 'BUCKET_NOT_FOUND', 'URI_TOO_LONG'],
  },
  {
    operationId: 'leaveCluster',
    method: 'POST',
    path: '/v1/cluster/leave',
    tag: 'cluster',
    summary: 'Let a node hand over what it has, and leave',
    query: [],
    fields: ['Content-Type'],
    body: { required: true, content: { 'application/json': 'NodeChange' } },
    answers: { 200: { description: 'Agreed on; data moves from now on', content: { 'application/json': 'Changed' } } },
    errors: changeErrors,
  },
  {
    operationId: 'removeFromCluster',
    method: 'POST',
    path: '/v1/cluster/remove',
    tag: 'cluster',
    summary: 'Take out a node that is down and will not come back; with force also where it may have had the only copy',
    query: [],
    fields: ['Content-Type'],
    body: { required: true, content: { 'application/json': 'NodeRemoval' } },
    answers: { 200: { description: 'Agreed on; data moves from now on', content: { 'application/json': 'Changed' } } },
    errors: changeErrors,
  },
  plainRoute('getLiveness', '/healthz', 'Whether the process works', health),
  plainRoute('getReadiness', '/readyz', 'Whether the node should get requests', health),
  plainRoute('getMetrics', '/metrics', 'Counters as Prometheus text', {
    200: { description: 'Prometheus exposition format 0.0.4', content: { 'text/plain': 'Text' } },
  }),
  plainRoute('getVersion', '/version', 'Version and id of the node', {
    200: { description: 'The version', content: { 'application/json': 'Version' } },
  }),
  plainRoute('getLimits', '/v1/limits', 'Limits of keys, values and requests', {
    200: { description: 'The limits', content: { 'application/json': 'LimitTable' } },
  }),
  plainRoute('getOpenApi', '/openapi.json', 'This description of the API', {
    200: { description: 'An OpenAPI 3.1 document', content: { 'application/json': 'OpenApi' } },
  }),
] as const satisfies readonly Route[]

/** The operations of the table. */
export type OperationId = (typeof routes)[number]['operationId']

/** Whether a raw path stands under the path of a route. */
function matches(path: string, routePath: string): boolean {
  const wanted = routePath.split('/')
  const given = path.split('/')
  if (wanted.at(-1) === '{key}' ? given.length < wanted.length : given.length !== wanted.length) return false
  return wanted.every((part, index) => (part.startsWith('{') ? given[index] !== '' : part === given[index]))
}

/** The methods that a raw path (without query) serves, as an Allow field lists them; undefined where there is no route. */
export function allowedMethods(path: string): string | undefined {
  const methods = routes.filter((route) => matches(path, route.path)).map((route) => route.method)
  if (methods.length === 0) return undefined
  const all = methods.includes('GET') && !methods.includes('HEAD') ? ['GET', 'HEAD', ...methods.slice(1)] : methods
  return all.join(', ')
}
