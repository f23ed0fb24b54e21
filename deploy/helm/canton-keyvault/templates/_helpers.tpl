{{- define "keyvault.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "keyvault.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains (include "keyvault.name" .) .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "keyvault.name" .) | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "keyvault.selector" -}}
app.kubernetes.io/name: {{ include "keyvault.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "keyvault.labels" -}}
{{ include "keyvault.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "keyvault.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "keyvault.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is required with serviceAccount.create=false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "keyvault.serverSecret" -}}
{{- if .Values.certManager.enabled -}}
{{- printf "%s-server" (include "keyvault.fullname" .) -}}
{{- else -}}
{{- required "tls.secretName is required without certManager.enabled" .Values.tls.secretName -}}
{{- end -}}
{{- end -}}

{{- /* A value of TOML. JSON strings are TOML strings. Numbers of values are floats, and the vault wants integers. */ -}}
{{- define "toml.value" -}}
{{- if kindIs "string" . -}}{{ toJson . }}
{{- else if kindIs "slice" . -}}[{{ range $i, $item := . }}{{ if $i }}, {{ end }}{{ include "toml.value" $item }}{{ end }}]
{{- else if kindIs "map" . -}}{ {{ $first := true }}{{ range $key, $item := . }}{{ if not $first }}, {{ end }}{{ $first = false }}{{ toJson $key }} = {{ include "toml.value" $item }}{{ end }} }
{{- else if kindIs "float64" . -}}{{ if eq (floor .) . }}{{ printf "%.0f" . }}{{ else }}{{ . }}{{ end }}
{{- else -}}{{ . }}
{{- end -}}
{{- end -}}

{{- /* A table of TOML: (dict "path" "wrapper" "table" map). Plain values first, then tables and lists of tables. */ -}}
{{- define "toml.table" -}}
{{- $path := .path -}}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (and (kindIs "slice" $value) $value (kindIs "map" (first $value)))) }}
{{ $key }} = {{ include "toml.value" $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- $name := ternary $key (printf "%s.%s" $path $key) (eq $path "") }}
{{- if kindIs "map" $value }}

[{{ $name }}]
{{- include "toml.table" (dict "path" $name "table" $value) }}
{{- else if and (kindIs "slice" $value) $value (kindIs "map" (first $value)) }}
{{- range $value }}

[[{{ $name }}]]
{{- include "toml.table" (dict "path" $name "table" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* The configuration as a map. */ -}}
{{- define "keyvault.config" -}}
{{- $nodes := list -}}
{{- $grants := list -}}
{{- range $validator, $of := .Values.validators -}}
{{- range $node, $settings := $of.nodes -}}
{{- $nodes = append $nodes $node -}}
{{- if dig "enabled" true $of -}}
{{- $grants = append $grants (dict "principal" $settings.principal "role" "node" "nodes" (list $node)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if ne (len $nodes) (len (uniq $nodes)) -}}{{- fail "a node is in two validators: names of nodes must be unique in a vault" -}}{{- end -}}
{{- $cas := list -}}
{{- range $i, $ca := .Values.tls.clientCas -}}
{{- $table := dict "file" (printf "/run/canton-keyvault/client-ca-%d/%s" $i (default "ca.crt" $ca.key)) -}}
{{- with $ca.trustDomains }}{{- $_ := set $table "trust_domains" . -}}{{- end -}}
{{- with $ca.dns }}{{- $_ := set $table "dns" . -}}{{- end -}}
{{- with $ca.crlKey }}{{- $_ := set $table "crl" (list (printf "/run/canton-keyvault/client-ca-%d/%s" $i .)) -}}{{- end -}}
{{- $cas = append $cas $table -}}
{{- end -}}
{{- $tls := dict "certificate" "/run/canton-keyvault/server/tls.crt" "key" "/run/canton-keyvault/server/tls.key" "min_version" .Values.tls.minVersion "client_cas" $cas -}}
{{- with .Values.tls.deny }}{{- $_ := set $tls "deny" . -}}{{- end -}}
{{- $vault := dict "id" (required "vault.id is required: it is bound into every key, and must never change" .Values.vault.id) -}}
{{- with .Values.vault.instance }}
{{- if $.Values.postgresql.enabled }}{{ fail "vault.instance has no effect with postgresql.enabled: each replica has the name of its pod" }}{{ end -}}
{{- $_ := set $vault "instance" . -}}
{{- end -}}
{{- $storage := dict "path" "/var/lib/canton-keyvault/keyvault.db" -}}
{{- if .Values.postgresql.enabled -}}
{{- $storage = dict "postgresql" (dict "url_file" "/run/canton-keyvault/postgresql/url" "ca" "/run/canton-keyvault/postgresql/ca.crt") -}}
{{- end -}}
{{- $config := dict
  "nodes" $nodes
  "vault" $vault
  "listen" (dict "api" "0.0.0.0:8443" "ops" "0.0.0.0:9443")
  "tls" $tls
  "storage" $storage
  "grants" (concat $grants .Values.grants) -}}
{{- if .Values.openbao.enabled -}}
{{- $bao := dict "addresses" .Values.openbao.addresses "ca" "/run/canton-keyvault/openbao/ca.crt" -}}
{{- if eq .Values.openbao.login "token" -}}
{{- $_ := set $bao "token_file" "/run/canton-keyvault/openbao/token" -}}
{{- else -}}
{{- $_ := set $bao "certificate" "/run/canton-keyvault/openbao/tls.crt" -}}
{{- $_ := set $bao "key" "/run/canton-keyvault/openbao/tls.key" -}}
{{- with .Values.openbao.role }}{{- $_ := set $bao "role" . -}}{{- end -}}
{{- with .Values.openbao.authMount }}{{- $_ := set $bao "auth_mount" . -}}{{- end -}}
{{- end -}}
{{- with .Values.openbao.namespace }}{{- $_ := set $bao "namespace" . -}}{{- end -}}
{{- with .Values.openbao.mount }}{{- $_ := set $bao "mount" . -}}{{- end -}}
{{- $_ := set $config "wrapper" (dict "openbao" (list $bao)) -}}
{{- end -}}
{{- with .Values.pkcs11 -}}
{{- if .enabled -}}
{{- $token := dict
  "module" (required "pkcs11.module is required with pkcs11.enabled" .module)
  "token" (required "pkcs11.token is required with pkcs11.enabled" .token)
  "pin_file" "/run/canton-keyvault/pkcs11/pin" -}}
{{- with .sessions }}{{- $_ := set $token "sessions" . -}}{{- end -}}
{{- $_ := set $config "wrapper" (merge (dict "pkcs11" (list $token)) (default dict $config.wrapper)) -}}
{{- end -}}
{{- end -}}
{{- toJson (mergeOverwrite $config (deepCopy .Values.config)) -}}
{{- end -}}

{{- /* What needs a restart: everything but nodes, grants and tls, which the vault reloads. */ -}}
{{- define "keyvault.restartChecksum" -}}
{{- omit (include "keyvault.config" . | fromJson) "nodes" "grants" "tls" | toJson | sha256sum -}}
{{- end -}}
