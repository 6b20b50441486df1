/** Small schemas that several sections of the configuration share. */
import { z } from 'zod';

export const milliseconds = z.int().min(0).max(86_400_000);
export const positiveMilliseconds = z.int().min(1).max(86_400_000);
export const port = z.int().min(0).max(65_535);
export const url = z.url({ protocol: /^https?$/, error: 'must be an http or https URL' });
export const headerName = z.string().regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/, 'must be a header name');
export const headerMap = z.record(headerName, z.string());
export const path = z.string().startsWith('/', 'must start with "/"');
export const store = z.enum(['legacy', 'app']);
export const method = z.string().regex(/^[A-Za-z]+$/, 'must be an HTTP method');
export const scalar = z.union([z.string(), z.number(), z.boolean(), z.null()]);
