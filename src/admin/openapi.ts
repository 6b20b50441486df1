/** The OpenAPI 3.1 document, made from the same operations that the server serves. */
import { z } from 'zod';
import { problemAnswer } from './answers.ts';
import { notAvailableYet, type Operation } from './operation.ts';

export function openApiDocument(operations: readonly Operation[]): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  const add = (method: string, path: string, entry: unknown): void => {
    const name = `/v1${path.replaceAll(/:([a-z]+)/gi, '{$1}')}`;
    (paths[name] ??= {})[method] = entry;
  };
  for (const operation of operations) add(operation.method, operation.path, describeOperation(operation));
  add('get', '/events', {
    summary: 'Follows the audit log as server-sent events; resumes after Last-Event-ID or ?after=.',
    description: 'Needs the role viewer.',
    responses: {
      '200': { description: 'The stream.', content: { 'text/event-stream': {} } },
      default: problem,
    },
  });
  for (const { method, path } of notAvailableYet) {
    add(method, path, {
      summary: 'Not available yet.',
      parameters: pathParameters(path),
      responses: { '501': problem },
    });
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'onewriter admin API',
      version: '1',
      description: 'Each role may do what the ones before it may: viewer, operator, approver, admin.',
    },
    security: [{ bearer: [] }],
    paths,
    components: {
      securitySchemes: { bearer: { type: 'http', scheme: 'bearer' } },
      schemas: { Problem: jsonSchema(problemAnswer, 'output') },
    },
  };
}

const problem = {
  description: 'A problem document (RFC 9457).',
  content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
};

function describeOperation(operation: Operation): Record<string, unknown> {
  const body = operation.body === undefined ? undefined : jsonSchema(operation.body, 'input');
  const ndjson = operation.ndjson === true ? { 'application/x-ndjson': { schema: { type: 'string' } } } : {};
  return {
    summary: operation.summary,
    description: `Needs the role ${operation.role}.`,
    parameters: [...pathParameters(operation.path), ...queryParameters(operation.query)],
    ...(body === undefined
      ? {}
      : { requestBody: { required: true, content: { 'application/json': { schema: body }, ...ndjson } } }),
    responses: {
      [operation.status]: {
        description: 'Done.',
        content: { 'application/json': { schema: jsonSchema(operation.answer, 'output') } },
      },
      default: problem,
    },
  };
}

function pathParameters(path: string): unknown[] {
  return [...path.matchAll(/:([a-z]+)/gi)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }));
}

function queryParameters(query: z.ZodType | undefined): unknown[] {
  if (query === undefined) return [];
  const { properties = {} } = jsonSchema(query, 'input');
  return Object.entries(properties as Record<string, unknown>).map(([name, schema]) => ({
    name,
    in: 'query',
    required: false,
    schema,
  }));
}

function jsonSchema(schema: z.ZodType, io: 'input' | 'output'): Record<string, unknown> {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: 'any' });
  return rest;
}
